"""Layers of a block that follow from the model's prediction and the clear dates."""

import numpy as np

from xr_cloudfree.engine.provenance import Provenance, nearest_last
from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY
from xr_cloudfree.models.protocol import Prediction


def test_of_two_dates_equally_near_the_earlier_is_last():
    assert nearest_last(np.array([-9.0, -5.0, 0.5, 5.0])).tolist() == [0, 3, 1, 2]


def test_each_state_of_a_pixel_has_its_flag():
    known = np.array([[[False, True, True, True]], [[False, True, False, True]]])
    kept = np.array([[[False, False, False, True]], [[False, False, False, True]]])
    clear = np.array([[[False, True, True, True]], [[False, False, False, True]]])
    source = np.array([[-1, 0, -1, 0]], np.int16)
    provenance = Provenance(
        times=np.array(["2021-06-01", "2021-06-04"], "M8[ns]"),
        offsets=np.array([-3.0, 0.0]),
        clear=clear,
        prediction=Prediction(np.zeros((2, 1, 4), np.float32), known.any(axis=0), source),
        known=known,
        kept=kept,
        target=1,
        reads=np.array([2, 5]),
        n_dates=7,
        unit=1.0,
        snowy=np.ones((1, 4), bool),
    )
    assert provenance.filled().tolist() == [[NOT_FILLED, FILLED, PARTLY, OBSERVED]]
    assert provenance.n_clear().tolist() == [[0, 1, 1, 2]]
    np.testing.assert_array_equal(provenance.days_to_clear(), [[np.nan, -3, -3, 0]])
    days = provenance.source_time().astype("M8[D]").astype(str)
    assert days.tolist() == [["NaT", "2021-06-01", "NaT", "2021-06-04"]]
    assert provenance.snow().tolist() == [[False, False, False, True]]
    assert not provenance.suspect().any()
    assert np.isnan(provenance.uncertainty()[:, 0, :3]).all() and (provenance.uncertainty()[:, 0, 3] == 0).all()
    assert not provenance.gate().any()
