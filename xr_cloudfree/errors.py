"""Exceptions and the warning of this package, and the remedies that exceptions carry.

Every error says what was found, what is needed and what to type. Each class also derives from the built-in that a
user would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Option:
    """An argument in Python that is an option on the command line.

    Parameters
    ----------
    name : str
        Name of the argument, such as ``"scale"``.
    value : str
        Its value as Python source, such as ``"1e-4"`` or ``"['B02']"``; empty to name the option alone.
    """

    name: str
    value: str

    def __str__(self) -> str:
        """Return the argument as typed in Python."""
        return f"{self.name}={self.value}"


@dataclass(frozen=True)
class Code:
    """Python code that has no equivalent on the command line."""

    text: str

    def __str__(self) -> str:
        """Return the code."""
        return self.text


@dataclass(frozen=True)
class Separator:
    """Text between two ways to mend a fault, in Python and on the command line."""

    text: str
    command: str = ", or "

    def __str__(self) -> str:
        """Return the text for Python."""
        return self.text


Part = str | Option | Code | Separator


class Remedy(str):
    """What to type, as text for Python, with its options kept apart for the command line.

    Made by `option`, `code`, `either` and `then`. Adding text on either side keeps the options; formatting a remedy
    into another string loses them.

    Parameters
    ----------
    *parts : str, Option, Code or Separator
        Pieces of the text, in order.

    Examples
    --------
    >>> remedy = either(option("scale=1e-4", "offset=0") + " for digital numbers", code("cube / 1e4"))
    >>> print(remedy)
    scale=1e-4, offset=0 for digital numbers, or cube / 1e4
    >>> remedy.spell(lambda name, value: f"--{name} {value}")
    '--scale 1e-4 --offset 0 for digital numbers'
    """

    parts: tuple[Part, ...]

    def __new__(cls, *parts: Part) -> Remedy:
        """Join the parts, and keep them."""
        remedy = super().__new__(cls, "".join(map(str, parts)))
        remedy.parts = parts
        return remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the parts."""
        return Remedy, self.parts

    def __add__(self, other: str) -> Remedy:
        """Append text or a remedy."""
        return Remedy(*self.parts, *_parts(other))

    def __radd__(self, other: str) -> Remedy:
        """Prepend text."""
        return Remedy(*_parts(other), *self.parts)

    def removesuffix(self, suffix: str) -> Remedy:
        """Return the remedy without these parts at its end, or as it is if it does not end in them."""
        ending = _parts(suffix)
        return Remedy(*self.parts[: -len(ending)]) if self.parts[-len(ending) :] == ending else self

    def spell(self, spelling: Callable[[str, str], str | None]) -> str:
        """Return the remedy for a command line.

        Parameters
        ----------
        spelling : callable
            From the name of an option and its value, both as Python source, to what is typed; None if the command
            line cannot express the value.

        Returns
        -------
        str
            The ways that the command line can express; the text for Python, marked as such, if there are none.
        """
        text, way, fits = "", "", True
        separator = end = Separator("")
        for part in (*self.parts, end):
            if isinstance(part, Separator):
                if fits and way:
                    text += way if not text else separator.command + way
                separator, way, fits = part, "", True
            elif isinstance(part, str):
                way += " " if part == ", " else part  # a comma separates arguments in Python alone
            else:
                typed = spelling(part.name, part.value) if isinstance(part, Option) else None
                way, fits = way + (typed or ""), fits and typed is not None
        return text or f"in Python: {self}"


def _parts(text: str) -> tuple[Part, ...]:
    return text.parts if isinstance(text, Remedy) else (text,) if text else ()


def option(*arguments: str) -> Remedy:
    """Return arguments that are options on the command line.

    Parameters
    ----------
    *arguments : str
        Name and value as typed in Python, such as ``"scale=1e-4"``, ``"bands=['B02']"`` or ``"check=False"``; an
        empty value, as in ``"mask="``, names the option alone.

    Examples
    --------
    >>> option("date='2021-07'", "freq='10D'")
    "date='2021-07', freq='10D'"
    """
    parts: list[Part] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        parts += [", ", Option(name, value)] if parts else [Option(name, value)]
    return Remedy(*parts)


def code(text: str) -> Remedy:
    """Return Python code that has no equivalent on the command line, where it is left out beside another way."""
    return Remedy(Code(text))


def either(*ways: str, by: str = ", or ") -> Remedy:
    """Return a choice of remedies.

    Parameters
    ----------
    *ways : str
        The alternatives, made by `option` or `code`, or plain text that is the same everywhere.
    by : str
        What stands between them in Python; on the command line it is always ", or ".
    """
    first, *others = ways
    return Remedy(*_parts(first), *(part for way in others for part in (Separator(by), *_parts(way))))


def then(remedy: str, following: str) -> Remedy:
    """Return a remedy followed by another step."""
    return Remedy(*_parts(remedy), Separator("; then ", "; then "), *_parts(following))


class CloudfreeError(Exception):
    """Base class of all errors of this package.

    Parameters
    ----------
    found : str
        What was found in the cube or the call.
    needed : str
        What is needed instead.
    remedy : str
        What to type: text that is the same in Python and on the command line, or a `Remedy` made by `option`, `code`
        or `either`.

    Attributes
    ----------
    remedy : Remedy
        What to type in Python; ``remedy.spell(...)`` is what to type on a command line.
    """

    def __init__(self, found: str, needed: str, remedy: str) -> None:
        self.found, self.needed = found, needed
        self.remedy = remedy if isinstance(remedy, Remedy) else Remedy(remedy)
        super().__init__(f"{found}. Needed: {needed}. Try: {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors are raised in tasks and have to survive the trip back from another process.
        return type(self), (self.found, self.needed, self.remedy)


class DimensionError(CloudfreeError, ValueError):
    """The cube lacks a dimension, or has one too many."""


class BandError(CloudfreeError, ValueError):
    """The bands are missing, unknown, duplicated or indistinguishable from other variables."""


class TimeError(CloudfreeError, ValueError):
    """The time axis or the target date cannot be used."""


class GridError(CloudfreeError, ValueError):
    """Two layers are on different grids, or the grid is not regular."""


class MaskError(CloudfreeError, ValueError):
    """No clear mask can be derived from the cube and the options."""


class MaskTypeError(MaskError, TypeError):
    """The mask has a data type whose meaning is ambiguous."""


class ScalingError(CloudfreeError, ValueError):
    """The values are not reflectance, and their scaling is unknown or wrong."""


class OptionError(CloudfreeError, ValueError):
    """An option has an invalid value."""


class OptionTypeError(OptionError, TypeError):
    """An option has the wrong type."""


class InputError(OptionError, OSError):
    """A file or URL of the cube cannot be read: it is damaged, truncated, unreachable or access is denied."""


class ModelNotFoundError(CloudfreeError, LookupError):
    """No model of this name is installed."""


class ModelError(CloudfreeError, ValueError):
    """A model cannot be used on this cube, or violates the protocol of models."""


class WeightsError(ModelError):
    """The files of a pretrained model are damaged, incomplete, unsafe or inconsistent."""


class HubError(CloudfreeError, OSError):
    """A model hub cannot be reached, or refuses a request."""


class SizeError(CloudfreeError, MemoryError):
    """The request does not fit into memory; raised before anything is allocated."""


class OutputError(CloudfreeError, OSError):
    """The output cannot be written to the requested location."""


class RunError(CloudfreeError, RuntimeError):
    """A run over regions stopped early. Finished regions are kept; the remedy says how to resume."""


class StoreError(OutputError):
    """A store of a run or its journal is damaged, or does not fit what would be written to it."""


class ChangedError(OutputError):
    """A store was begun with a different cube, model or settings than those given for resuming it."""


class LockedError(OutputError):
    """Another process is filling this store."""


class MissingDependencyError(CloudfreeError, ImportError):
    """An optional package is not installed."""


class CloudfreeWarning(UserWarning):
    """Something that a user should know about, but that does not stop the work."""


# Packages that call this one on behalf of a user, who wrote none of their lines.
_BETWEEN = ("xarray", "dask", "distributed", "odc", "concurrent", "threading", "asyncio", "contextlib")


def warn(message: str) -> None:
    """Issue a `CloudfreeWarning` that points to the line of the user's code that led to it.

    Computations in threads of dask have no such line: the warning then points to what started the thread.

    Parameters
    ----------
    message : str
        The text.
    """
    frame: FrameType | None = sys._getframe()
    names = []
    while frame is not None:
        names.append(frame.f_globals.get("__name__", "").partition(".")[0])
        frame = frame.f_back
    own = len(names) - names[::-1].index(__name__.partition(".")[0])  # the frame that called this package first
    users = [depth for depth in range(own, len(names)) if names[depth] not in _BETWEEN]
    warnings.warn(message, CloudfreeWarning, stacklevel=1 + (users[0] if users else own))
