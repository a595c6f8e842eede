"""Configuration of the documentation; `make docs` builds it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import sphinx_autosummary_accessors
from sphinx.application import Sphinx

import xr_cloudfree
from xr_cloudfree.models.pretrained import locations

HERE = Path(__file__).resolve().parent

project = "xr_cloudfree"
author = "The xr_cloudfree developers"
copyright = "2026, the xr_cloudfree developers"
version = release = xr_cloudfree.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
    "sphinx_autosummary_accessors",
]
templates_path = ["_templates", sphinx_autosummary_accessors.templates_path]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_static_path = ["_static"]
html_theme = "pydata_sphinx_theme"
html_title = "xr_cloudfree"
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "header_links_before_dropdown": 8,
}

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings have the types, with shapes and units
numpydoc_show_class_members = False
# `name` in a docstring becomes a link where such a name is documented, and code otherwise.
default_role = "py:obj"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are stored with their outputs, and the tests run them: here they are only shown.
nb_execution_mode = "off"


# Files from outside this folder that are pages here: notebooks, and the cards of the models that come with the package.
PAGES_FROM = {path: HERE / "tutorials" / path.name for path in sorted((HERE.parent / "notebooks").glob("*.ipynb"))} | {
    locations.Shipped(name).folder() / "README.md": HERE / "guide" / "cards" / f"{name}.md"
    for name in locations.shipped()
}
SOURCES = {page: source for source, page in PAGES_FROM.items()}


def copy_pages() -> None:
    """Copy the files of `PAGES_FROM` into this folder, without the metadata that model hubs read."""
    for old in [*(HERE / "tutorials").glob("*.ipynb"), *(HERE / "guide" / "cards").glob("*.md")]:
        old.unlink()
    for source, page in PAGES_FROM.items():
        page.parent.mkdir(exist_ok=True)
        shutil.copy(source, page)
        if page.suffix == ".md":
            page.write_text(re.sub(r"\A---\n.*?^---\n", "", source.read_text(), flags=re.DOTALL | re.MULTILINE))


def follow_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Point links between files of the repository at the pages that were made of them."""
    page = Path(app.env.doc2path(docname))
    origin = SOURCES.get(page, page)

    def target(match: re.Match[str]) -> str:
        path = (origin.parent / match[1]).resolve()
        if not path.exists():
            return match[0]
        return f"]({Path(os.path.relpath(PAGES_FROM.get(path, path), page.parent)).as_posix()}"

    source[0] = re.sub(r"\]\(((?!https?:)[^)#\s]+\.(?:md|ipynb))", target, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    copy_pages()
    app.connect("source-read", follow_links)
