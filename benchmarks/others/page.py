"""The tables in docs/development/other_sensors.md, written between two comments, from the means beside this file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.masks.page import MARKED, load, write
from benchmarks.others.measure import BICUBIC, INJECTION

__all__ = ["PAGE", "SUMMARY", "load", "refresh", "summarise", "write"]

PAGE = Path(__file__).parents[2] / "docs" / "development" / "other_sensors.md"
SUMMARY = Path(__file__).with_name("summary.csv")
OURS, ALONE = "regress and others", "regress"
_PARTS = {"all": "whole frame", "seen": "seen by the other sensor"}
_KEYS = ["track", "part", "place", "method"]


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the means over frames and seeds by track, part, place and method, and the number of frames."""
    groups = scores.groupby(_KEYS, sort=False)
    means = groups[["psnr", "ergas", "sam", "ssim", "coverage", "width", "consistency", "seconds"]].mean()
    return means.assign(frames=groups.size()).reset_index()


def refresh(text: str, summary: pd.DataFrame, command: str) -> str:
    """Return the text of the page with its tables written again."""
    made = {
        "places": places(summary),
        "tracks": tracks(summary),
        "command": f"```\n{command}\n```",
    }
    return MARKED.sub(lambda match: f"{match[1]}{match[2]}{made[match[1]]}", text)


def places(summary: pd.DataFrame) -> str:
    """Return the table of all places, with the whole frame hidden and the coarse image clear."""
    rows = summary[(summary.track == "coarse 0") & (summary.part == "all")]
    table = rows.pivot(index="place", columns="method", values="psnr")
    ours = rows[rows.method == OURS].set_index("place")
    lines = [
        "| place | frames | `linear` | `regress` | bicubic | injection | **with the other sensor** | over injection | "
        "over bicubic | 90 % intervals | consistency |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for place, row in table.iterrows():
        own = ours.loc[place]
        lines.append(
            f"| {place} | {own.frames:.0f} | {row['linear']:.1f} | {row[ALONE]:.1f} | {row[BICUBIC]:.1f} | "
            f"{row[INJECTION]:.1f} | **{row[OURS]:.1f}** | {row[OURS] - row[INJECTION]:+.1f} | "
            f"{row[OURS] - row[BICUBIC]:+.1f} | {own.coverage:.0%} | {own.consistency:.4f} |"
        )
    mean = table.mean()
    lines.append(
        f"| mean | | {mean['linear']:.1f} | {mean[ALONE]:.1f} | {mean[BICUBIC]:.1f} | {mean[INJECTION]:.1f} | "
        f"**{mean[OURS]:.1f}** | {mean[OURS] - mean[INJECTION]:+.1f} | {mean[OURS] - mean[BICUBIC]:+.1f} | "
        f"{ours.coverage.mean():.0%} | {ours.consistency.mean():.4f} |"
    )
    return "\n".join(lines)


def tracks(summary: pd.DataFrame) -> str:
    """Return the table of all tracks, means over places, for the whole frame and for what the coarse image shows."""
    lines = [
        "| track | scored | places | `regress` | injection | **with the other sensor** | ERGAS | SAM | SSIM | "
        "90 % intervals | mean width | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (track, part), rows in summary.groupby(["track", "part"], sort=False):
        mean = rows.groupby("method")[["psnr", "ergas", "sam", "ssim", "coverage", "width", "seconds"]].mean()
        ours = mean.loc[OURS]
        lines.append(
            f"| *{track}* | {_PARTS[part]} | {rows.place.nunique()} | "
            f"{mean.psnr[ALONE]:.1f} | {mean.psnr[INJECTION]:.1f} | **{ours.psnr:.1f}** | {ours.ergas:.2f} | "
            f"{ours.sam:.2f}° | {ours.ssim:.3f} | {ours.coverage:.0%} | {ours.width:.3f} | {ours.seconds:.2f} |"
        )
    return "\n".join(lines)
