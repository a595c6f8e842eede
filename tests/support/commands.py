"""Run the command line inside the test's process."""

from typer.testing import CliRunner

from xr_cloudfree.cli.app import app


def run(*arguments: object, code: int = 0) -> str:
    """Return the output of `cloudfree ARGUMENTS`, which has to end with the exit code `code`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output
