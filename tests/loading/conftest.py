"""Archives that several tests of this folder read."""

import pytest

pytest.importorskip("odc.stac")

from tests.support import archives

DAYS = (3, 8, 13, 18, 23, 28)


@pytest.fixture(scope="session")
def sentinel(tmp_path_factory):
    """Items of Sentinel-2 of four catalogues: six dates, of two offsets."""
    folder = tmp_path_factory.mktemp("sentinel")
    forms = archives.SENTINEL * 2
    times = (f"2021-07-{day:02d}T11:21:21" for day in DAYS)
    return [archives.make_item(folder, form, when) for form, when in zip(forms, times, strict=False)]


@pytest.fixture(scope="session")
def landsat(tmp_path_factory):
    """Items of three sensors of Landsat, two of each."""
    folder = tmp_path_factory.mktemp("landsat")
    forms = [form for form in archives.LANDSAT for _ in range(2)]
    return [
        archives.make_item(folder, form, f"2021-07-{day:02d}T11:14:00") for form, day in zip(forms, DAYS, strict=True)
    ]


@pytest.fixture(scope="session")
def hls(tmp_path_factory):
    """Items of HLS: L30 and S30 in turn."""
    folder = tmp_path_factory.mktemp("hls")
    return [
        archives.make_item(folder, form, f"2021-07-{day:02d}T11:14:00")
        for form, day in zip(archives.HLS * 3, DAYS, strict=True)
    ]
