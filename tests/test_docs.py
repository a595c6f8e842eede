"""The README and the documentation: Python blocks run, links resolve, tables and lists agree with the code."""

from __future__ import annotations

import inspect
import pkgutil
import re
import runpy
from pathlib import Path

import matplotlib
import pytest

import xr_cloudfree
from xr_cloudfree import errors
from xr_cloudfree.accessor import CloudfreeDataArray, CloudfreeDataset, CloudfreePlots
from xr_cloudfree.layers import LAYERS

ROOT = Path(__file__).resolve().parents[1]
MADE = ("_build", "cards", "generated")
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not {*page.relative_to(ROOT).parts} & {*MADE}),
]


def blocks(page: Path) -> str:
    """All Python blocks of a page in their order, each line where it is in the page."""
    lines = page.read_text().splitlines()
    inside, kept = False, []
    for line in lines:
        fence = re.match(r"```(\w*)", line)
        kept.append(line if inside and not fence else "")
        if fence:
            inside = not inside and fence[1] == "python"
    return "\n".join(kept)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page).strip()], ids=lambda page: page.name)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    # As from the root of the repository, but what a page writes goes elsewhere.
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page), str(page), "exec"), {"__name__": page.stem})


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        ROOT / "CONTRIBUTING.md",
        ROOT / "RELEASING.md",
        ROOT / "CODE_OF_CONDUCT.md",
        ROOT / "CHANGELOG.md",
        ROOT / "changes" / "README.md",
        ROOT / "data" / "README.md",
        ROOT / "notebooks" / "README.md",
        ROOT / "benchmarks" / "README.md",
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_those_of_the_code(page: Path) -> None:
    refresh = runpy.run_path(str(ROOT / "docs" / "tables.py"))["refresh"]
    assert page.read_text() == refresh(page.read_text()), "make tables writes them again"


def test_the_api_page_lists_all_that_is_public() -> None:
    page = (ROOT / "docs" / "api" / "index.md").read_text()
    listed = {line.strip() for line in page.splitlines()}
    functions = {name for name in xr_cloudfree.__all__ if name != "__version__"}
    methods = {
        f"{kind}.cloudfree.{name}"
        for kind, accessor in (("DataArray", CloudfreeDataArray), ("Dataset", CloudfreeDataset))
        for name, _ in inspect.getmembers(accessor, inspect.isfunction)
        if not name.startswith("_")
    }
    plots = {
        f"accessor.CloudfreePlots.{name}"
        for name, _ in inspect.getmembers(CloudfreePlots, inspect.isfunction)
        if not name.startswith("_")
    }
    types = {
        name
        for name, _ in inspect.getmembers(errors, inspect.isclass)
        if name.startswith("Cloudfree") or name.endswith("Error")
    }
    assert sorted((functions | methods | plots | types) - listed) == []


def test_the_api_page_lists_nothing_else() -> None:
    pytest.importorskip("lightning")  # some of it is about training
    module, names = "", []
    for line in (ROOT / "docs" / "api" / "index.md").read_text().splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.removeprefix(".. currentmodule:: ")
        elif re.fullmatch(r"   [A-Za-z][\w.]+", line) and module != "xarray":
            names.append(f"{module}.{line.strip()}")
    assert len(names) > 80
    for name in names:
        pkgutil.resolve_name(name)  # raises where there is nothing of this name


def test_every_layer_is_described() -> None:
    page = (ROOT / "docs" / "guide" / "fill.md").read_text()
    assert [name for name in LAYERS if f"| `{name}` |" not in page] == []
