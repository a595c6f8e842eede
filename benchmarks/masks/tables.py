"""Markdown tables of the page about masks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.accuracy.tables import number, table
from benchmarks.masks.measure import CHANGE, GIVEN, NOISE, REPAIR, TMASK, TRUE
from benchmarks.masks.places import COVERS
from benchmarks.masks.summary import best_dilation, gain, goals, pick
from xr_cloudfree.accuracy.mask_tracks import MASK_TRACKS
from xr_cloudfree.accuracy.simulate import TRACKS

_DB, _SHARE = ".2f", ".1%"


def tables(summary: pd.DataFrame) -> dict[str, str]:
    """Return the tables of the page by name."""
    return {
        "goals": "\n".join([_judged(summary), "", *map(str, goals(summary))]),
        **{track.replace(" ", "_"): places(summary, track) for track in MASK_TRACKS},
        "masks": masks(summary),
        "sensors": sensors(summary),
        "covers": covers(summary),
        "right_masks": right_masks(summary),
        "change": change(summary),
    }


def _judged(summary: pd.DataFrame) -> str:
    """Return a sentence on which places the goals are judged."""
    tuned = sorted(set(summary["place"][summary["tuned"]]))
    if not tuned:
        return "Means over all places."
    chosen = ", ".join(tuned)
    return f"Means over places on which no constant was chosen. Chosen on: {chosen}; these are marked with an asterisk."


def _named(summary: pd.DataFrame, place: str | None) -> str:
    if place is None:
        return "**all**"
    return f"{place} \\*" if summary["tuned"][summary["place"] == place].any() else place


def places(summary: pd.DataFrame, track: str) -> str:
    """Return the table of one track by place: PSNR under each mask, and the corrected mask itself."""
    dilated = best_dilation(summary, track)
    columns = [pick(summary, track, mask) for mask in (GIVEN, REPAIR, TMASK, NOISE, TRUE)]
    ours = columns[1]
    rows = []
    for place in [*sorted(columns[0].index), None]:
        row = [_named(summary, place)]
        row += [number(_at(column, place, "whole"), _DB) for column in columns]
        pixels = "" if place is None or place not in dilated.index else f" ({int(dilated.loc[place, 'pixels'])})"
        row.insert(3, number(_at(dilated, place, "whole"), _DB) + pixels)
        row += [number(_at(ours, place, metric), _DB) for metric in ("under", "rim")]
        row += [number(_at(ours, place, metric), _SHARE) for metric in ("recall", "precision", "false_alarms")]
        rows.append(row)
    head = ["place", "given", "corrected", "best dilation", "Tmask", "FORCE", "true", "under", "rim", "recall"]
    return table([*head, "precision", "false alarms"], rows).strip()


def masks(summary: pd.DataFrame) -> str:
    """Return the table of all masks: means over places."""
    rows = []
    for track in MASK_TRACKS:
        kinds = {name: pick(summary, track, name) for name in (GIVEN, REPAIR, TMASK, NOISE, TRUE)}
        kinds["best dilation"] = best_dilation(summary, track)
        for name in (GIVEN, REPAIR, "best dilation", TMASK, NOISE, TRUE):
            found = kinds[name]
            if len(found):
                row = [track, "corrected" if name == REPAIR else name]
                row += [number(_at(found, None, metric), _DB) for metric in ("whole", "under", "rim")]
                shares = ("recall", "precision", "false_alarms", "others_recall", "others_precision", "restored")
                row += [number(_at(found, None, metric), _SHARE) for metric in shares]
                row.append(number(_at(found, None, "seconds"), ".1f") if name in (REPAIR, TMASK, NOISE) else "")
                rows.append(row)
    head = ["track", "mask", "whole", "under", "rim", "recall", "precision", "false alarms", "recall, other dates"]
    return table([*head, "precision, other dates", "restored", "seconds"], rows).strip()


def sensors(summary: pd.DataFrame) -> str:
    """Return the table by sensor: means over its places."""
    rows = []
    for sensor in sorted(set(summary["sensor"])):
        of_sensor = summary[summary["sensor"] == sensor]
        for track in MASK_TRACKS:
            kinds = [pick(of_sensor, track, mask) for mask in (GIVEN, REPAIR, TMASK, TRUE)]
            if not len(kinds[0]):
                continue
            row = [sensor, track, str(len(kinds[0]))]
            row += [number(_at(kind, None, "whole"), _DB) for kind in kinds]
            shares = ("recall", "precision", "false_alarms", "restored")
            rows.append(row + [number(_at(kinds[1], None, metric), _SHARE) for metric in shares])
    head = ["sensor", "track", "places", "given", "corrected", "Tmask", "true", "recall", "precision", "false alarms"]
    return table([*head, "restored"], rows).strip()


def covers(summary: pd.DataFrame) -> str:
    """Return the table by cover: means over the places that have it."""
    rows = []
    for track in MASK_TRACKS:
        for cover in COVERS:
            kinds = [pick(summary, track, mask, cover) for mask in (GIVEN, REPAIR, TRUE)]
            if not len(kinds[0]):
                continue
            row = [track, cover, str(len(kinds[0]))]
            row += [number(_at(kind, None, "whole"), _DB) for kind in kinds]
            shares = ("recall", "precision", "false_alarms")
            rows.append(row + [number(_at(kinds[1], None, metric), _SHARE) for metric in shares])
    head = ["track", "cover", "places", "given", "corrected", "true", "recall", "precision", "false alarms"]
    return table(head, rows).strip()


def right_masks(summary: pd.DataFrame) -> str:
    """Return the table of the tracks whose masks are right: what their correction costs."""
    rows = []
    for track in TRACKS:
        ours, given = pick(summary, track, REPAIR), pick(summary, track, GIVEN)
        for place in [*sorted(ours.index), None]:
            values = [_at(kind, place, "whole") for kind in (given, ours)]
            over = gain(ours, given)
            change = over.mean() if place is None else over.get(place, np.nan)
            row = [track, _named(summary, place), *(number(value, _DB) for value in values), number(change, "+.2f")]
            rows.append([*row, number(_at(ours, place, "newly_masked"), ".2%")])
    return table(["track", "place", "given", "corrected", "difference", "newly masked"], rows).strip()


def change(summary: pd.DataFrame) -> str:
    """Return the table of real change: its pixels, and the share that each mask masks."""
    kinds = [pick(summary, CHANGE, mask) for mask in (REPAIR, TMASK, NOISE)]
    rows = []
    for place in [*sorted(kinds[0].index), None]:
        pixels = "" if place is None else f"{_at(kinds[0], place, 'pixels'):.0f}"
        rows.append(
            [_named(summary, place), pixels, *(number(_at(kind, place, "newly_masked"), _SHARE) for kind in kinds)]
        )
    return table(["place", "pixels", "corrected", "Tmask", "FORCE"], rows).strip()


def _at(found: pd.DataFrame, place: str | None, metric: str) -> float:
    """Return a metric of one place, or the mean over places."""
    if metric not in found or not len(found):
        return float("nan")
    values = found[metric]
    return float(values.mean() if place is None else values.get(place, np.nan))
