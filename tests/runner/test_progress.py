"""Progress of a run: what is counted, and how it is shown."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from xr_cloudfree.runner import progress
from xr_cloudfree.runner.progress import Bar, Counts, Lines, Progress


def test_the_rate_is_that_of_this_run_alone() -> None:
    counts = Counts(total=100, done=60, fresh=10, seconds=5)
    assert counts.rate == 2 and counts.eta == 20
    assert Counts(total=100, done=60).eta is None
    assert Counts(total=100, done=100).eta == 0


def test_a_log_gets_its_first_and_last_line_and_few_between(capsys) -> None:
    with Progress(500, done=100, display=Lines()) as shown:
        for _ in range(400):
            shown.add(1000)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["done"] for line in lines] == [100, 500]
    assert lines[-1]["bytes"] == 400_000 and lines[-1]["total"] == 500 and lines[-1]["eta"] == 0
    assert lines[-1]["rate"] > 0


def test_a_log_tells_where_a_run_was_stopped(capsys) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(5, display=Lines()) as shown:
        shown.add(1)
        raise KeyboardInterrupt
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["done"] == 1


def test_a_terminal_gets_a_bar(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with Progress(3, done=1) as shown:
        assert isinstance(shown._display, Bar)
        shown.add(2**20)
        shown.add(2**20)
    assert "3/3" in capsys.readouterr().err


def test_jupyter_gets_a_bar(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(progress, "find_spec", lambda name: name == "ipywidgets" or None)
    with Progress(3, done=1) as shown:
        assert isinstance(shown._display, Bar)
        shown.add(2**20)
        shown.add(2**20)
    assert "3/3" in "".join(capsys.readouterr())
