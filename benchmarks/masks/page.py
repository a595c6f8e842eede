"""The tables in docs/development/masks.md: written between two comments, from the summary beside this file."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from benchmarks.masks.tables import tables

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "development" / "masks.md"
SUMMARY = Path(__file__).with_name("summary.csv")
MARKED = re.compile(r"(?<=<!-- measured: )(\w+)( -->\n\n).*?(?=\n\n<!-- end of measured -->)", re.DOTALL)


def refresh(text: str, summary: pd.DataFrame, command: str) -> str:
    """Return the text of the page with its tables written again.

    Parameters
    ----------
    text : str
        The page.
    summary : DataFrame
        Made by `summarise`.
    command : str
        The command that measured it.
    """
    made = {**tables(summary), "command": f"```\n{command}\n```"}
    return MARKED.sub(lambda match: f"{match[1]}{match[2]}{made[match[1]]}", text)


def write(summary: pd.DataFrame, command: str, path: Path = SUMMARY) -> None:
    """Write the summary; the first line holds the command."""
    with path.open("w") as file:
        file.write(f"# {command}\n")
        summary.to_csv(file, index=False, float_format="%.4g")


def load(path: Path = SUMMARY) -> tuple[pd.DataFrame, str]:
    """Read the summary and the command written by `write`."""
    with path.open() as file:
        command = file.readline().removeprefix("# ").strip()
        return pd.read_csv(file), command
