"""The tables in the pages that are made from the code: `python docs/tables.py` writes them again.

They are kept in the pages, between two comments, so that they are readable without a build. `tests/test_docs.py` fails
where a table is not that of the code.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterable
from pathlib import Path

import xr_cloudfree
from xr_cloudfree.cube.crs import KEYS
from xr_cloudfree.cube.dims import DIM_NAMES, STANDARD_NAMES
from xr_cloudfree.cube.schemes import SCHEMES, Flag, layer_names
from xr_cloudfree.cube.sensors import BAND_NAMES, INDICES, SENSORS, Sensor
from xr_cloudfree.masking.csmask import CSmask
from xr_cloudfree.masking.omnicloudmask import OmniCloudMask
from xr_cloudfree.masking.s2cloudless import S2Cloudless

FORMS = runpy.run_path(str(Path(__file__).with_name("forms.py")))
PAGES = sorted(Path(__file__).parent.glob("*/*.md"))
MARKED = re.compile(r"(?<=<!-- table: )(\w+)( -->\n\n).*?(?=\n\n<!-- end of table -->)", re.DOTALL)


def refresh(text: str) -> str:
    """Return the text of a page with its tables written again."""
    made = tables()
    return MARKED.sub(lambda match: f"{match[1]}{match[2]}{made[match[1]]}", text)


def tables() -> dict[str, str]:
    """Return the tables by name, in Markdown."""
    return {
        "models": models(),
        "schemes": schemes(),
        "scores": scores(),
        "detectors": detectors(),
        **{f"scheme_{scheme.name}": flags(scheme.flags) for scheme in SCHEMES.values() if scheme.flags},
        "layouts": rows(("input", "form", "output for one date"), *FORMS["LAYOUTS"]),
        "dims": dims(),
        "crs": code(KEYS),
        "readers": readers(),
        "indices": indices(),
        "sensors": sensors(),
        "bands": rows(
            ("common name", "also understood"),
            *((f"`{common}`", ", ".join(names[1:])) for common, names in BAND_NAMES.items()),
        ),
    }


def rows(*lines: tuple[object, ...]) -> str:
    """Return a table in Markdown; the first line is its head."""
    head, *body = (f"| {' | '.join(map(str, line))} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def code(names: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def models() -> str:
    """Return the table of the models that come with the package."""

    def dates(days: float) -> str:
        return "all" if days != days else f"within {days:g} days"  # NaN: no limit

    return rows(
        ("model", "what it does", "bands", "dates used", "layers"),
        *(
            (
                f"`{name}`",
                row["summary"],
                row["bands"],
                dates(row["window_days"]),
                code(filter(None, row["layers"].split(", "))),
            )
            for name, row in xr_cloudfree.list_models().iterrows()
        ),
    )


def schemes() -> str:
    """Return the table of schemes with classes or bits, and the names of layers that are read by them."""
    return rows(
        ("layer", "scheme", "recognised names"),
        *((s.title, f"`{s.name}`", known(layer_names(s))) for s in SCHEMES.values() if not s.has_threshold),
    )


def scores() -> str:
    """Return the table of schemes with a threshold."""
    ends = {"probability": "not clear from this value on", "clear_score": "clear from this value on"}
    return rows(
        ("scheme", "recognised names", "threshold"),
        *((f"`{name}`", known(layer_names(SCHEMES[name])), end) for name, end in ends.items()),
    )


def detectors() -> str:
    """Return the detectors: package, license, what they need and what they give."""
    levels = {None: "any level", "toa": "top of the atmosphere"}
    body = []
    for spec in (CSmask.spec, OmniCloudMask.spec, S2Cloudless.spec):
        more = f", and {', '.join(spec.more_bands)} if there" if spec.more_bands else ""
        made_for = f"{', '.join(spec.sensors) or 'any sensor'}; {levels[spec.level]}"
        values = f"`{spec.scheme}`" + ("" if spec.threshold is None else f", `threshold={spec.threshold:g}`")
        package = f"[{spec.package}]({spec.source}), {spec.license}"
        body.append((f'`mask="{spec.name}"`', package, ", ".join(spec.bands) + more, made_for, values))
    return rows(("option", "package and license", "bands", "made for", "read as"), *body)


def known(names: Iterable[str]) -> str:
    """Return the names of layers that a scheme is chosen for."""
    return code(names) or "none: pass `scheme=`"


def flags(table: tuple[Flag, ...]) -> str:
    """Return the values of a scheme and what they mean."""

    def value(flag: Flag) -> str:
        if flag.mask is None:
            return str(flag.value)
        bit = flag.mask.bit_length() - 1
        return f"bit {bit}" if flag.mask == flag.value == 1 << bit else f"`value & 0x{flag.mask:X} == {flag.value}`"

    return rows(("value", "meaning", "state"), *((value(f), f.meaning, f.state) for f in table))


def dims() -> str:
    """Return the names by which dimensions are recognised."""
    standard = {dim: [name for name, known in STANDARD_NAMES.items() if known == dim] for dim in DIM_NAMES}
    return rows(
        ("dimension", "names, in any case", "or the CF `standard_name`"),
        *((dim, code(names), code(standard[dim])) for dim, names in DIM_NAMES.items()),
    )


def readers() -> str:
    """Return what the usual readers give of Sentinel-2 L2A."""
    return rows(
        ("reader", "form", "band names", "quality layer", "digital numbers", "note"),
        *(
            (
                f"[{r.name}]({r.source})",
                r.form,
                code(r.bands),
                code([r.mask]) if r.mask else "a separate file: pass `mask=`",
                code([r.options]) if r.options else "none, or described by the metadata",
                r.hint,
            )
            for r in FORMS["READERS"]
        ),
    )


def sensors() -> str:
    """Return the sensors and products, with their bands, quality layers and usual scaling."""

    def bands(sensor: Sensor) -> str:
        return ", ".join(f"{band} {common}" for band, common in sensor.bands.items() if common)

    return rows(
        ("product", "band numbers", "quality layers", "digital numbers", "source"),
        *((s.title, bands(s), code(s.layers), f"`{s.usual}`", f"[description]({s.source})") for s in SENSORS),
    )


def indices() -> str:
    """Return the indices that are known by name, by the limits of their values."""
    limits = sorted(set(INDICES.values()))
    return rows(
        ("indices", "minimum", "maximum"),
        *((code(n for n, pair in INDICES.items() if pair == limit), *(f"{v:g}" for v in limit)) for limit in limits),
    )


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text()
        if (fresh := refresh(text)) != text:
            page.write_text(fresh)
            print(f"{page.relative_to(Path(__file__).parent)}: tables written again")
