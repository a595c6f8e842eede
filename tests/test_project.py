"""Files of the project agree: releases of the linters, versions of Python, fragments of the changelog."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / ".github").is_dir():
    pytest.skip("needs a clone", allow_module_level=True)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_pre_commit_and_make_lint_run_the_same_releases() -> None:
    pins = dict(line.split("==") for line in PROJECT["dependency-groups"]["lint"] if "==" in line)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {repo["repo"].rsplit("/", 1)[1]: repo["rev"].removeprefix("v") for repo in hooks}
    assert pins == {
        "ruff": revisions["ruff-pre-commit"],
        "mypy": revisions["mirrors-mypy"],
        "codespell": revisions["codespell"],
    }


def test_each_python_that_is_claimed_is_tested() -> None:
    prefix = "Programming Language :: Python :: "
    claimed = [line.removeprefix(prefix) for line in PROJECT["project"]["classifiers"] if line.startswith(prefix)]
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["quick"]["strategy"]["matrix"]
    assert claimed == matrix["python"] and len(matrix["os"]) == 3
    assert PROJECT["project"]["requires-python"] == f">={claimed[0]}"
    assert re.findall(r"python(3\.\d+)", (ROOT / "Makefile").read_text())[: len(claimed)] == claimed[::-1]


def test_fragments_of_the_changelog_are_of_a_known_kind() -> None:
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    names = [path.name for path in (ROOT / "changes").iterdir() if path.name != "README.md"]
    assert [name for name in names if not re.fullmatch(rf"(\d+|\+\w+)\.({'|'.join(kinds)})\.md", name)] == []
    assert PROJECT["tool"]["towncrier"]["start_string"] in (ROOT / "CHANGELOG.md").read_text()
