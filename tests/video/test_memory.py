"""The memory that a network takes is found without running it, and tiles are chosen by it."""

import math
from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models import chunking
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.network import InputRequirements, Network
from stvsr.ops.deformable import use_backend
from stvsr.video import memory
from stvsr.video.memory import OVERHEAD, _LiveMemory, bytes_needed, bytes_taken, grid_within
from stvsr.video.tiles import Grid
from stvsr.video.upscaling import Upscaler
from stvsr.video.windows import windows


class Three(Network):
    """One map of 16 channels between input and output: all three are held while the output is computed."""

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
    backend = use_backend("blocked")
    bytes_taken(network, 20, 30)
    assert use_backend(backend) == "blocked"
    for parameter, was in zip(network.parameters(), before, strict=True):
        assert type(parameter.data) is Tensor
        assert torch.equal(parameter, was)


class Keeping(Three):
    """Keeps a table for the size of the frames, as some networks do for speed."""

    table: Tensor | None = None

    def forward(self, lr: Tensor) -> Tensor:
        self.table = torch.ones(lr.shape[-2:]) if self.table is None else self.table
        return super().forward(lr) * self.table


def test_what_a_network_keeps_of_a_trial_is_not_there_when_it_runs() -> None:
    """Tensors kept from a dry run have no content."""
    network = Keeping()
    assert bytes_taken(network, 20, 30) > 0
    assert network.table is None


def test_of_many_divisions_few_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run of large frames takes seconds."""
    tried: list[tuple[int, int]] = []
    monkeypatch.setattr(memory, "bytes_taken", lambda network, *tile: tried.append(tile) or 40_000 * math.prod(tile))
    grid = grid_within(4e9, BicubicBlend(), 1080, 1920, limited_by="-")
    assert grid.tiles > 20
    assert len(tried) < 8


def test_a_network_on_another_device_is_tried_there() -> None:
    """`meta` stands in for a GPU: its tensors do not mix with the CPU's either."""
    assert bytes_taken(Three().to("meta"), 20, 30) == bytes_taken(Three(), 20, 30)


def test_the_papers_network_takes_less_than_a_fifth_of_its_memory_where_frames_are_large(
    configure: Callable[..., DictConfig],
) -> None:
    """Bytes per pixel are nearly constant for chunked frames, so only their largest tile need be tried."""
    # Short trunks take as much memory as long ones, as the peak lies elsewhere.
    trunks = ["model.feature_blocks=1", "model.reconstruction_blocks=1"]
    network = instantiate(configure("train", "ablation=e", *trunks).model)
    small, large, larger = (bytes_taken(network, side, side) / side**2 for side in (128, 384, 768))
    assert 25_000 < small < 50_000
    assert large < small / 5
    assert larger == pytest.approx(large, rel=0.2)


class Watching(Three):
    """Records the most memory that was alive at the start of a pass."""

    def __init__(self, alive: _LiveMemory) -> None:
        super().__init__()
        self.alive, self.beside = alive, 0

    def forward(self, lr: Tensor) -> Tensor:
        self.beside = max(self.beside, self.alive.current)
        return BicubicBlend()(lr)


@pytest.mark.parametrize(
    ("grid", "height", "width"),
    [
        # About the smallest frames with so many tiles, so that tiles and what they share make up most of the count.
        *((Grid(1, 1), 64, 64), (Grid(1, 3), 120, 300), (Grid(3, 1), 300, 120)),
        *((Grid(2, 2), 200, 200), (Grid(3, 3), 288, 288), (Grid(2, 1), 192, 400)),
    ],
    ids=str,
)
def test_finished_tiles_are_counted_as_many_as_there_are(grid: Grid, height: int, width: int) -> None:
    """A row of them and what the next ones share with it; the row before has been freed."""
    frames = [torch.randint(256, (3, height, width), dtype=torch.uint8) for _ in range(4)]
    (window,) = windows((frame, False) for frame in frames)
    with _LiveMemory() as alive:
        network = Watching(alive)
        Upscaler(network, grid=grid)(window)
    largest = max(bytes_taken(Three(), *tile) for tile in grid.sizes(height, width, multiple=1))
    counted = bytes_needed(grid, Three(), height, width) - OVERHEAD * largest
    # The window, a tile of it, and finished 8-bit rows are counted elsewhere.
    others = (2 * 4 * 4 * 3 + 7 * 3 * 16) * height * width
    assert counted <= network.beside + others
    assert network.beside <= counted + others


def fits(grid: Grid, memory: float, network: Network, height: int, width: int) -> bool:
    """Whether every tile fits beside the finished ones of its row and what the next ones share with them."""
    sizes = grid.sizes(height, width, multiple=1)
    taken = OVERHEAD * max(bytes_taken(network, *tile) for tile in sizes)
    row = max(tile[0] for tile in sizes) * (width + 96) if grid.columns > 1 else 0
    return taken + 7 * 3 * 16 * 4 * (row + (96 * width if grid.rows > 1 else 0)) <= memory


def test_a_frame_that_fits_is_not_divided_and_a_bigger_one_is() -> None:
    network = Wide()
    enough = OVERHEAD * bytes_taken(network, 200, 300)
    assert grid_within(1.01 * enough, network, 200, 300, limited_by="-") == Grid()
    smaller = grid_within(0.9 * enough, network, 200, 300, limited_by="-")
    assert smaller != Grid()
    assert fits(smaller, 0.9 * enough, network, 200, 300)


def test_a_row_of_finished_tiles_fits_beside_the_one_that_is_made() -> None:
    """For a very wide frame, the row takes more memory than a tile."""
    network = Wide()
    tile = OVERHEAD * bytes_taken(network, 100, 2000)
    with pytest.raises(InvalidInput, match="GiB more"):
        grid_within(0.2 * tile, network, 100, 4000, limited_by="-")
    grid = grid_within(0.9 * tile, network, 100, 4000, limited_by="-")
    assert fits(grid, 0.9 * tile, network, 100, 4000)


class Wide(Three):
    """Takes some ten times as much memory per pixel as a finished frame, as real networks do."""

    def forward(self, lr: Tensor) -> Tensor:
        held = torch.empty(4000, *lr.shape[-2:])
        made = super().forward(lr)
        del held
        return made


class Turns(Wide):
    """Takes half as much again for small frames, as networks do that process large ones in chunks."""

    def forward(self, lr: Tensor) -> Tensor:
        held = torch.empty(2000 if lr.shape[-1] * lr.shape[-2] <= chunking.LARGEST_WHOLE else 0, *lr.shape[-2:])
        made = super().forward(lr)
        del held
        return made


@pytest.mark.parametrize(
    ("height", "width", "shares"), [(480, 640, (0.2, 0.25, 0.3, 0.4, 0.6)), (384, 384, (0.35, 0.36, 0.4, 0.6))]
)
def test_small_tiles_at_the_edges_of_large_ones_fit_as_well(height: int, width: int, shares: tuple[float, ...]) -> None:
    """They are 48 pixels shorter, and may be processed whole."""
    network = Turns()
    # For the square, the first two shares suffice for the largest tiles of a grid whose smaller ones do not fit.
    for share in shares:
        memory = share * OVERHEAD * bytes_taken(network, height, width)
        assert fits(grid_within(memory, network, height, width, limited_by="-"), memory, network, height, width)


def test_frames_take_the_memory_of_padded_ones() -> None:
    network = Three()
    network.requirements = InputRequirements(multiple_of=4, minimum_frames=1)
    needed = bytes_needed(Grid(), network, 16, 20)
    assert bytes_needed(Grid(), network, 13, 18) == needed
    with pytest.raises(InvalidInput, match="GiB more"):
        grid_within(needed - 1, network, 13, 18, limited_by="-")


def test_too_little_memory_is_said_with_what_is_needed() -> None:
    says = r"--memory 1, but frames of 300x200 need 0\.[1-9] GiB more, even in tiles"
    with pytest.raises(InvalidInput, match=says):
        grid_within(1000, Wide(), 200, 300, limited_by="--memory 1")
