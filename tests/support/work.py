"""Functions of a region's number that a worker can import, for tests of the runner."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from xr_cloudfree.models.classical.pixelwise import Linear


@dataclass(frozen=True)
class Noted:
    """Leaves a file for each time that a region was begun, and one when it was done."""

    folder: str
    seconds: float = 0.0

    def __call__(self, index):
        self.note("begun", index)
        self.before(index)
        time.sleep(self.seconds)
        self.note("done", index)
        return index

    def note(self, what, index):
        Path(self.folder, f"{what}-{index}-{time.monotonic_ns()}").touch()

    def times(self, what, index):
        return len(list(Path(self.folder).glob(f"{what}-{index}-*")))

    def before(self, index):
        pass


@dataclass(frozen=True)
class Killing(Noted):
    """Takes its worker down with it, a number of times in certain regions."""

    victims: tuple[int, ...] = ()
    times_each: int = 1

    def before(self, index):
        if index in self.victims and self.times("begun", index) <= self.times_each:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Failing(Noted):
    """Raises, a number of times in certain regions."""

    victims: tuple[int, ...] = ()
    times_each: int = 10**9
    error: Exception | None = None

    def before(self, index):
        if index in self.victims and self.times("begun", index) <= self.times_each:
            raise self.error or OSError("the disk is not there")


@dataclass(frozen=True)
class Greedy(Noted):
    """Takes more memory than its worker may have, in certain regions, and holds it."""

    victims: tuple[int, ...] = ()
    size: int = 2**30

    def before(self, index):
        if index in self.victims:
            held = bytearray()
            while len(held) < self.size:
                held += b"1" * 2**24
                time.sleep(0.01)
            time.sleep(30)


class Slow:
    """The model `linear`, in no hurry: so a run can be hit in its midst."""

    def __init__(self, seconds=0.05):
        self.seconds, self.model = seconds, Linear()
        self.spec = replace(self.model.spec, name="slow")

    def predict(self, tiles):
        time.sleep(self.seconds)
        return self.model.predict(tiles)


class Hungry(Slow):
    """The model `linear`, which takes more memory than a worker has where a region is large."""

    def predict(self, tiles):
        if tiles[0].shape[1] > 48:
            held = bytearray()
            while len(held) < 2**31:
                held += b"1" * 2**25
                time.sleep(0.01)
        return self.model.predict(tiles)
