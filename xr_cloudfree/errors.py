"""What can go wrong, as types.

Every error says what was found, what is needed and what to type. Each class also derives from the built-in that a
user would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

from typing import Any


class CloudfreeError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    found : str
        What was found in the cube or the call.
    needed : str
        What is needed instead.
    remedy : str
        What to type.
    """

    def __init__(self, found: str, needed: str, remedy: str) -> None:
        self.found, self.needed, self.remedy = found, needed, remedy
        super().__init__(f"{found}. Needed: {needed}. Try: {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Raised inside tasks: the error has to survive the trip back from another process.
        return type(self), (self.found, self.needed, self.remedy)


class DimensionError(CloudfreeError, ValueError):
    """The cube lacks a dimension, or has one too many."""


class BandError(CloudfreeError, ValueError):
    """The bands are missing, unknown, doubled or cannot be told from other variables."""


class TimeError(CloudfreeError, ValueError):
    """The time axis or the target date cannot be used."""


class GridError(CloudfreeError, ValueError):
    """Two layers do not lie on one grid, or the grid is not regular."""


class MaskError(CloudfreeError, ValueError):
    """No clear mask can be made from what was given."""


class MaskTypeError(MaskError, TypeError):
    """The mask has a type from which its meaning cannot be told."""


class ScalingError(CloudfreeError, ValueError):
    """The values are not reflectance, and nothing tells how to make them so."""


class OptionError(CloudfreeError, ValueError):
    """An option has a value that it cannot take."""


class OptionTypeError(OptionError, TypeError):
    """An option has the wrong type."""


class InputError(OptionError, OSError):
    """A file of the cube, or what lies at a URL, cannot be read: it is damaged, cut short, out of reach or refused."""


class ModelNotFoundError(CloudfreeError, LookupError):
    """No model of this name is installed."""


class ModelError(CloudfreeError, ValueError):
    """A model cannot be used on this cube, or does not keep its contract."""


class WeightsError(ModelError):
    """The files of a learned model are damaged, incomplete, unsafe or do not go together."""


class HubError(CloudfreeError, OSError):
    """A model hub cannot be reached, or refuses what was asked of it."""


class SizeError(CloudfreeError, MemoryError):
    """The request is larger than could be held; refused before anything is allocated."""


class OutputError(CloudfreeError, OSError):
    """The output cannot be written where it was asked for."""


class RunError(CloudfreeError, RuntimeError):
    """A run over regions stopped before its end. What is done stays, and the remedy says how to go on."""


class StoreError(OutputError):
    """A store of a run, or its journal, is damaged; or something that does not fit it would be written."""


class ChangedError(OutputError):
    """A store was begun with another cube, model or settings than those with which it should go on."""


class LockedError(OutputError):
    """Another process is filling this store."""


class MissingDependencyError(CloudfreeError, ImportError):
    """An optional package is not installed."""


class CloudfreeWarning(UserWarning):
    """Something that a user should know of, and that stops nothing."""
