"""What a network takes is found without running it, and tiles are chosen by it."""

from collections.abc import Callable
from math import prod

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.requirements import InputRequirements, Network
from stvsr.video.memory import OVERHEAD, bytes_taken, grid_within
from stvsr.video.tiles import Grid, coarsest_grid


class Three(Network):
    """Input, one map of 16 channels, and the output: the first is held while the last is made."""

    requirements = InputRequirements(multiple_of=1, minimum_frames=1)

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1)

    def forward(self, lr: Tensor) -> Tensor:
        return self.narrow(self.wide(lr.flatten(0, 1))).unflatten(0, lr.shape[:2])


def test_what_is_alive_at_once_is_added_up() -> None:
    # Four frames of 3 + 16 + 3 channels in float32.
    assert bytes_taken(Three(), 20, 30) == 20 * 30 * 4 * 4 * (3 + 16 + 3)


def test_nothing_is_computed_and_the_network_stays_as_it_is() -> None:
    network = Three()
    before = [parameter.clone() for parameter in network.parameters()]
    bytes_taken(network, 20, 30)
    for parameter, was in zip(network.parameters(), before, strict=True):
        assert type(parameter.data) is Tensor
        assert torch.equal(parameter, was)


def test_a_network_on_another_device_is_tried_there() -> None:
    """As on a GPU; tensors on `meta` refuse to meet those of a CPU as well."""
    assert bytes_taken(Three().to("meta"), 20, 30) == bytes_taken(Three(), 20, 30)


def test_the_papers_network_takes_a_quarter_of_its_memory_where_frames_are_large(
    configure: Callable[..., DictConfig],
) -> None:
    """A fixed number of bytes a pixel on either side, so that the largest tile is also the one that takes most."""
    network = instantiate(configure("train", "ablation=e").model)
    small, large, larger = (bytes_taken(network, side, side) / side**2 for side in (128, 256, 512))
    assert 25_000 < small < 50_000
    assert large < small / 3
    assert larger == pytest.approx(large, rel=0.2)


def test_a_frame_that_fits_is_not_divided_and_a_bigger_one_is() -> None:
    network = Three()
    enough = OVERHEAD * bytes_taken(network, 200, 300)
    assert grid_within(1.01 * enough, network, 200, 300, limit="-") == Grid()
    smaller = grid_within(0.5 * enough, network, 200, 300, limit="-")
    assert prod(smaller.largest(200, 300, multiple=1)) <= 0.5 * 200 * 300


def test_tiles_are_tried_until_they_fit_where_small_ones_take_more_of_each_pixel() -> None:
    """As networks do that take large frames in turns, and small ones all at once."""

    class Turns(Three):
        def forward(self, lr: Tensor) -> Tensor:
            held = [lr.clone() for _ in range(2 if lr.shape[-1] * lr.shape[-2] < 2**16 else 0)]
            made = super().forward(lr)
            del held
            return made

    network = Turns()
    memory = 0.2 * OVERHEAD * bytes_taken(network, 400, 800)
    hoped_for = coarsest_grid(400, 800, most=400 * 800 // 5, multiple=1)
    assert hoped_for is not None
    assert OVERHEAD * bytes_taken(network, *hoped_for.largest(400, 800, multiple=1)) > memory
    grid = grid_within(memory, network, 400, 800, limit="-")
    assert OVERHEAD * bytes_taken(network, *grid.largest(400, 800, multiple=1)) <= memory


def test_too_little_memory_is_said_with_what_is_needed() -> None:
    with pytest.raises(InvalidInput, match=r"--memory 1, of which 0\.0 GiB remain for the network; .* need 0\.0 GiB"):
        grid_within(1000, Three(), 200, 300, limit="--memory 1")
