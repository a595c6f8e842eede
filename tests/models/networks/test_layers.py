"""Maps at a lower resolution, and back."""

import pytest
import torch

from xr_cloudfree.models.networks import layers


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 1)])
def test_levels_survive_the_way_down_and_up(step, size):
    maps = torch.full((2, 3, *size), 0.25)
    small = layers.reduced(maps, step)
    assert small.shape == (2, 3, -(-size[0] // step), -(-size[1] // step))
    torch.testing.assert_close(layers.enlarged(small, step, size), maps)


def test_slopes_survive_between_the_centres_of_the_outermost_squares():
    maps = (torch.arange(16.0)[:, None] + 2 * torch.arange(12.0))[None]
    back = layers.enlarged(layers.reduced(maps, 4), 4, (16, 12))
    torch.testing.assert_close(back[:, 2:-2, 2:-2], maps[:, 2:-2, 2:-2])


def test_a_square_is_a_mean_and_the_edge_repeats_the_last_row():
    maps = torch.tensor([[[1.0, 3.0], [5.0, 7.0], [10.0, 20.0]]])
    torch.testing.assert_close(layers.reduced(maps, 2), torch.tensor([[[4.0], [15.0]]]))
