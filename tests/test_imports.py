"""Imports go one way, and importing the package stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "xr_cloudfree"
# From the ground floor up. A module imports from its own folder and from lower floors, never from above.
FLOORS = (
    ("compat", "errors", "layers", "version"),
    ("options", "storage.files", "storage.read_errors", "storage.locations", "storage.objects", "storage.folders"),
    ("accuracy.metrics", "accuracy.losses", "accuracy.simulate", "accuracy.strata"),
    ("cube", "storage.remote"),
    ("storage.geotransform", "synthetic"),
    ("storage.geotiff", "storage.geozarr"),
    ("io",),
    ("loading",),
    ("models.kernels", "models.spec", "models.plugins"),
    ("models.protocol",),
    ("models.bundles",),
    ("models.classical",),
    ("models.networks",),
    ("models.pretrained",),
    ("models.registry", "models.auto"),
    ("masking",),
    ("accuracy.mask_tracks",),
    ("engine",),
    ("inputs",),
    ("plan",),
    ("labels",),
    ("sharpening",),
    ("runner",),
    ("api",),
    ("stores",),
    (
        "accuracy.evaluate",
        "accuracy.sensors",
        "summary",
        "plot",
        "cli.commands",
        "cli.options",
        "cli.progress",
        "cli.cluster",
    ),
    ("cli.fill", "cli.preview", "cli.evaluate", "cli.info", "cli.runs"),
    ("accessor", "cli.app"),
    ("__init__", "__main__", "cli.__main__"),
)
# What a user without a graphics card, a compiler or a display should not wait for.
HEAVY = ("torch", "torchvision", "numba", "matplotlib", "scipy", "rasterio", "distributed", "netCDF4", "odc", "pystac")


def modules() -> dict[str, Path]:
    """Dotted names below the package, of all but the empty files that only mark a folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


def imported(path: Path, names: set[str]) -> set[str]:
    """Modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            continue
        for target in targets:
            parts = target.split(".")
            if parts[0] == PACKAGE.name:
                # The longest name that is a module; the rest is something inside it.
                inside = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
                found.add(next((name for name in inside if name in names), "__init__"))
    return found


def floor(name: str) -> int:
    levels = [level for level, names in enumerate(FLOORS) if any(name == n or name.startswith(f"{n}.") for n in names)]
    assert levels, f"{name} has no place in FLOORS: give it one"
    return levels[0]


@cache
def graph() -> dict[str, set[str]]:
    paths = modules()
    # A folder's empty __init__ is nobody's neighbour.
    names = {name for name, path in paths.items() if path.read_text().strip() or path.name != "__init__.py"}
    return {name: imported(paths[name], names) for name in sorted(names)}


def test_the_graph_is_seen() -> None:
    assert "errors" in graph()["models.registry"]
    assert len(graph()) > 15


@pytest.mark.parametrize("name", sorted(graph()))
def test_imports_go_down(name: str) -> None:
    folder = name.split(".")[0]
    for other in graph()[name] - {name}:
        same_folder = other.split(".")[0] == folder and floor(other) == floor(name)
        assert same_folder or floor(other) < floor(name), f"{name} imports {other}, which is not below it"


def test_no_two_files_import_each_other() -> None:
    edges = {name: others - {name} for name, others in graph().items()}
    TopologicalSorter(edges).prepare()  # raises CycleError and names the cycle


def test_importing_the_package_is_light() -> None:
    code = f"import sys, xr_cloudfree; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def imports_of_tests(code: str) -> set[str]:
    """Return modules of the tests that `code` imports, also in strings, which hold code for other processes."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"^\s*(?:from|import) (tests\b[\w.]*)", node.value, re.MULTILINE))
    return {name for name in found if name.split(".")[0] == "tests"}


def test_tests_import_nothing_from_other_tests() -> None:
    """What several tests use is in tests/support."""
    assert imports_of_tests("def f():\n    from tests.a import b\n") == {"tests.a.b"}
    for path in sorted(TESTS.rglob("*.py")):
        names = imports_of_tests(path.read_text())
        others = sorted(name for name in names if not name.startswith("tests.support"))
        assert path == Path(__file__) or not others, f"{path} imports {others}: move what is shared into tests/support"
