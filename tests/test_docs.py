"""The Python in the README and in the documentation runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    # The notebooks are copied when the documentation is built.
    assert [link for link in missing if not link.startswith("notebooks/")] == []
