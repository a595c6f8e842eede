"""``python -m xr_cloudfree``, which is the command ``cloudfree``."""

from xr_cloudfree.cli.app import app

if __name__ == "__main__":
    app(prog_name="cloudfree")
