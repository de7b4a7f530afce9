"""The costs of a network, compared with counts by hand."""

from collections.abc import Callable

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from stvsr.evaluation.costs import measured_cost, multiply_adds
from stvsr.evaluation.progress import BatchRecord
from stvsr.models import chunking
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.network import InputRequirements, Network
from stvsr.ops.deformable import use_backend


class OneConvolution(Network):
    """Repeats the first frame, enlarged by a convolution and a shuffle."""

    requirements = InputRequirements(multiple_of=4)

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 48, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        enlarged = nn.functional.pixel_shuffle(self.convolution(lr[:, 0]), 4)
        return enlarged.unsqueeze(1).expand(-1, 2 * lr.shape[1] - 1, -1, -1, -1)


def test_a_convolutions_multiply_adds_are_counted_once_each() -> None:
    assert multiply_adds(OneConvolution(), 8, 12) == pytest.approx(3 * 48 * 9 * 8 * 12 / 7)


def test_frames_are_counted_as_they_are_padded() -> None:
    assert multiply_adds(OneConvolution(), 7, 9) == multiply_adds(OneConvolution(), 8, 12)


class LooksAtValues(OneConvolution):
    """Depends on its input's values, as other projects' networks may."""

    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(lr / lr.max().item())


def test_a_network_that_does_not_run_without_values_is_scored_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The count comes last: a failure would cost hours of scoring."""
    record = BatchRecord(0, [], (8, 12), "cpu", 7, 1.0, {}, 0.0, 0.0, True, 100.0)
    cost = measured_cost(LooksAtValues(), [record])
    assert (cost.multiply_adds, cost.seconds_per_frame) == (None, pytest.approx(1 / 7))
    assert "warning: multiply-adds are not counted (LooksAtValues: " in capsys.readouterr().err


def test_bicubic_has_none_that_are_counted() -> None:
    assert multiply_adds(BicubicBlend(), 8, 8) is None


def test_the_papers_network_has_its_487_g_but_for_what_both_directions_share(
    configure: Callable[..., DictConfig],
) -> None:
    """Others counted 487 G at 4x64x112 without the deformable convolutions (62 on three levels: 21.5 G).

    Every term is proportional to the pixels, so a sixteenth of them suffices. For each of seven frames we compute once
    what they compute for each direction: its pyramids and its share of the first offset convolutions and the gates.
    """
    network = instantiate(configure("train").model)
    layer, levels = 64 * 64 * 9 * 16 * 28, 1 + 1 / 4 + 1 / 16
    deformable = 62 * levels * layer
    shared = 7 * (2 * 2 * (levels - 1) + 4 * levels + 4) * layer
    assert 7 * multiply_adds(network, 16, 28) - deformable + shared == pytest.approx(487e9 / 16, rel=0.002)


def test_deformable_convolutions_are_counted_whatever_runs_them(configure: Callable[..., DictConfig]) -> None:
    small = ["model.channels=8", "model.feature_blocks=1", "model.reconstruction_blocks=1"]
    network = instantiate(configure("train", "ablation=b", *small).model)
    counted = multiply_adds(network, 16, 16)
    before = use_backend("torchvision")
    try:
        assert multiply_adds(network, 16, 16) == counted
        assert use_backend("torchvision") == "torchvision", "what was chosen stays chosen"
    finally:
        use_backend(before)


def test_what_large_frames_compute_twice_counts_once(
    small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the figure per pixel would grow where frames go in chunks, and sizes could not be compared."""
    counted = multiply_adds(small_network("a"), 16, 16)
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 1)
    assert multiply_adds(small_network("a"), 16, 16) == counted


def record(
    batch: int,
    seconds: float,
    warm: bool,
    memory: float = 100.0,
    lr_size: tuple[int, int] = (8, 12),
    device: str = "some device, 2 threads",
) -> BatchRecord:
    stages = {"interpolator": seconds / 7, "upscaler": seconds * 6 / 7}
    return BatchRecord(batch, [], lr_size, device, 7, seconds, stages, 0.0, 0.0, warm, memory)


def test_seconds_are_the_median_of_warm_batches() -> None:
    records = [record(0, 70.0, False), record(1, 7.0, True), record(2, 14.0, True, 300.0), record(3, 700.0, True)]
    cost = measured_cost(OneConvolution(), records)
    assert cost.seconds_per_frame == pytest.approx(2.0)
    assert cost.parameters == 48 * 28
    assert cost.peak_memory == 300.0
    assert cost.frame_size == (48, 32)
    assert cost.device == "some device, 2 threads"


def test_cost_is_of_one_size_that_of_most_frames() -> None:
    large = [record(0, 700.0, False, lr_size=(16, 24)), record(1, 700.0, True, lr_size=(16, 24))]
    small = [record(2 + i, 7.0, i > 0) for i in range(3)]
    cost = measured_cost(OneConvolution(), [*large, *small])
    assert (cost.frame_size, cost.seconds_per_frame) == ((48, 32), 1.0)
    assert cost.multiply_adds == pytest.approx(3 * 48 * 9 * 8 * 12 / 7)


def test_warm_batches_of_another_size_are_no_measurement_of_this_one() -> None:
    """Their seconds would be reported for the wrong frame size."""
    large = [record(0, 700.0, True, lr_size=(16, 24)), record(1, 700.0, True, lr_size=(16, 24))]
    small = [record(2 + i, 7.0, i == 0) for i in range(3)]
    cost = measured_cost(OneConvolution(), [*large, *small])
    assert (cost.frame_size, cost.seconds_per_frame) == ((48, 32), 1.0)


def test_seconds_of_a_run_that_went_on_elsewhere_are_of_the_device_that_is_named() -> None:
    here = [record(0, 70.0, False, 900.0), record(1, 70.0, True, 900.0)]
    elsewhere = [record(2 + i, 7.0, i > 0, device="a GPU") for i in range(3)]
    cost = measured_cost(OneConvolution(), [*here, *elsewhere])
    assert (cost.device, cost.seconds_per_frame, cost.peak_memory) == ("a GPU", 1.0, 100.0)


def test_a_two_stage_system_costs_what_its_stages_cost() -> None:
    cost = measured_cost(BicubicBlend(), [record(0, 700.0, False), record(1, 7.0, True), record(2, 7.0, True)])
    assert [stage.parameters for stage in cost.stages] == [0, 0]
    assert [stage.seconds_per_frame for stage in cost.stages] == pytest.approx([1 / 7, 6 / 7])


def test_one_batch_is_no_measurement_of_time() -> None:
    cost = measured_cost(OneConvolution(), [record(0, 7.0, False)])
    assert cost.seconds_per_frame is None
