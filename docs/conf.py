"""Configuration of the documentation; `make docs` builds it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import sphinx_autosummary_accessors

import xr_cloudfree
from xr_cloudfree.cube.crs import KEYS
from xr_cloudfree.cube.dims import DIM_NAMES, STANDARD_NAMES
from xr_cloudfree.cube.forms import LAYOUTS, READERS
from xr_cloudfree.cube.schemes import SCHEMES, Flag
from xr_cloudfree.cube.sensors import BAND_NAMES, INDICES, SENSORS, Sensor
from xr_cloudfree.models.pretrained import locations

HERE = Path(__file__).parent

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
autodoc_typehints = "none"  # numpydoc says the types, with shapes and units
numpydoc_show_class_members = False
# `name` in a docstring links where there is such a name, and is code where there is none.
default_role = "py:obj"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks carry their outputs, and the tests run them: here they are only shown.
nb_execution_mode = "off"


def rows(*lines: tuple[object, ...]) -> str:
    """A table in Markdown, the first line its head."""
    head, *body = (f"| {' | '.join(map(str, line))} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body, ""])


def scheme_table(flags: tuple[Flag, ...]) -> str:
    def value(flag: Flag) -> str:
        if flag.mask is None:
            return str(flag.value)
        bit = flag.mask.bit_length() - 1
        return f"bit {bit}" if flag.mask == flag.value == 1 << bit else f"`value & 0x{flag.mask:X} == {flag.value}`"

    return rows(("value", "meaning", "here"), *((value(f), f.meaning, f.state) for f in flags))


def write_tables(folder: Path) -> None:
    """The tables of the pages, from the code that they describe."""
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES.values():
        if scheme.flags:
            (folder / f"scheme_{scheme.name}.md").write_text(scheme_table(scheme.flags))
    write_schemes(folder)
    names = ((f"`{common}`", ", ".join(names[1:])) for common, names in BAND_NAMES.items())
    (folder / "bands.md").write_text(rows(("common name", "also understood"), *names))
    write_forms(folder)
    models = xr_cloudfree.list_models()
    (folder / "models.md").write_text(
        rows(
            ("model", "what it does", "bands", "dates used", "layers"),
            *(
                (
                    f"`{name}`",
                    row["summary"],
                    row["bands"],
                    "all" if row["window_days"] != row["window_days"] else f"within {row['window_days']:g} days",
                    row["layers"].replace("_", "\\_"),
                )
                for name, row in models.iterrows()
            ),
        )
    )


def write_schemes(folder: Path) -> None:
    """The schemes of quality layers, with the names of layers that are read by them."""
    named = {s.name: ", ".join(f"`{name}`" for name in s.names) or "none: it has to be told" for s in SCHEMES.values()}
    tables = [(s.title, f"`{s.name}`", named[s.name]) for s in SCHEMES.values() if not s.has_threshold]
    (folder / "schemes.md").write_text(rows(("layer", "scheme", "known by name"), *tables))
    ends = {"probability": "from here on not clear", "clear_score": "from here on clear"}
    scores = [(f"`{name}`", named[name], end) for name, end in ends.items()]
    (folder / "scores.md").write_text(rows(("scheme", "known by name", "threshold"), *scores))


def write_forms(folder: Path) -> None:
    """What is understood of a cube's form: dimensions, coordinate systems, products, indices."""

    def code(names: Iterable[str]) -> str:
        return ", ".join(f"`{name}`" for name in names)

    def numbers(sensor: Sensor) -> str:
        named = [f"{band} {common}" for band, common in sensor.bands.items() if common]
        return ", ".join(named)

    axes = {role: [name for name, told in STANDARD_NAMES.items() if told == role] for role in DIM_NAMES}
    (folder / "dims.md").write_text(
        rows(
            ("dimension", "names, in any case", "or the CF `standard_name`"),
            *((role, code(names), code(axes[role])) for role, names in DIM_NAMES.items()),
        )
    )
    (folder / "layouts.md").write_text(rows(("what is given", "its form", "what comes back"), *LAYOUTS))
    (folder / "readers.md").write_text(
        rows(
            ("reader", "form", "names", "quality layer", "digital numbers", "to know"),
            *(
                (
                    f"[{r.name}]({r.source})",
                    r.form,
                    code(r.bands),
                    code([r.mask]) if r.mask else "a file of its own: `mask=`",
                    code([r.options]) if r.options else "none, or as the metadata tell",
                    r.hint,
                )
                for r in READERS
            ),
        )
    )
    (folder / "crs.md").write_text(code(KEYS) + "\n")
    (folder / "sensors.md").write_text(
        rows(
            ("product", "numbers of bands", "quality layers", "digital numbers", "source"),
            *((s.title, numbers(s), code(s.layers), f"`{s.usual}`", f"[description]({s.source})") for s in SENSORS),
        )
    )
    limits = sorted(set(INDICES.values()))
    (folder / "indices.md").write_text(
        rows(
            ("indices", "least", "largest"),
            *(
                (code(n for n, pair in INDICES.items() if pair == limit), f"{limit[0]:g}", f"{limit[1]:g}")
                for limit in limits
            ),
        )
    )


def write_cards(path: Path) -> None:
    """The cards of the models that come with the package, as parts of a page."""
    cards = []
    for name in locations.shipped():
        text = (locations.Shipped(name).folder() / "README.md").read_text()
        text = re.sub(r"\A---\n.*?^---\n", "", text, flags=re.DOTALL | re.MULTILINE)  # what is there for hubs
        # Two levels deeper, but for comments in code.
        parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
        parts[::2] = [re.sub(r"^#", "###", part, flags=re.MULTILINE) for part in parts[::2]]
        cards.append("".join(parts).strip())
    path.write_text("\n\n".join(cards or ["None come with this version."]) + "\n")


def copy_notebooks(source: Path, folder: Path) -> None:
    """Bring the notebooks into the documentation's folder, with a page that lists them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    found = sorted(source.glob("*.ipynb"))
    for notebook in found:
        shutil.copy(notebook, folder)
    listed = "\n".join(["```{toctree}", ":maxdepth: 1", "", *(path.stem for path in found), "```"])
    (folder / "index.md").write_text(f"# Notebooks\n\n{listed if found else 'There are none yet.'}\n")


write_tables(HERE / "_build" / "tables")
write_cards(HERE / "_build" / "tables" / "cards.md")
copy_notebooks(HERE.parent / "notebooks", HERE / "notebooks")
