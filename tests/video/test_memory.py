"""What a network takes is found without running it, and tiles are chosen by it."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.requirements import InputRequirements, Network
from stvsr.video.memory import OVERHEAD, bytes_per_pixel, grid_within
from stvsr.video.tiles import Grid


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
    assert bytes_per_pixel(Three()) == 4 * 4 * (3 + 16 + 3)


def test_nothing_is_computed_and_the_network_stays_as_it_is() -> None:
    network = Three()
    before = [parameter.clone() for parameter in network.parameters()]
    bytes_per_pixel(network)
    for parameter, was in zip(network.parameters(), before, strict=True):
        assert type(parameter.data) is Tensor
        assert torch.equal(parameter, was)


def test_a_network_on_another_device_is_tried_there() -> None:
    """As on a GPU; tensors on `meta` refuse to meet those of a CPU as well."""
    assert bytes_per_pixel(Three().to("meta")) == bytes_per_pixel(Three())


def test_the_papers_network_takes_about_40_kilobytes_a_pixel(configure: Callable[..., DictConfig]) -> None:
    from hydra.utils import instantiate

    network = instantiate(configure("train", "ablation=e").model)
    assert 25_000 < bytes_per_pixel(network) < 50_000


def test_a_frame_that_fits_is_not_divided_and_a_bigger_one_is() -> None:
    network = Three()
    enough = OVERHEAD * bytes_per_pixel(network) * 200 * 300
    assert grid_within(1.01 * enough, network, 200, 300, limit="-") == Grid()
    smaller = grid_within(0.5 * enough, network, 200, 300, limit="-")
    assert smaller.largest(200, 300, multiple=1) <= 0.5 * 200 * 300


def test_too_little_memory_is_said_with_what_is_needed() -> None:
    with pytest.raises(InvalidInput, match=r"--memory 1, of which 0\.0 GiB remain for the network; .* need 0\.0 GiB"):
        grid_within(1000, Three(), 200, 300, limit="--memory 1")
