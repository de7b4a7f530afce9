"""Objectives compare the right frames with the right targets, and their losses are sums."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from conftest import SMALL_RUN, moving_frames
from stvsr.checkpoint import load_network
from stvsr.data.clip import Batch
from stvsr.data.degradation import downsample
from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.interpolation import neighbours
from stvsr.models.two_stage import FrameInterpolator, FrameUpscaler, TwoStage
from stvsr.models.zooming_slow_mo import ZoomingSlowMo
from stvsr.stage_weights import load_stage
from stvsr.train import train
from stvsr.training.losses import charbonnier, l1
from stvsr.training.objectives import (
    FeatureInterpolation,
    FeatureReconstruction,
    FlowGuidedOffsets,
    FrameInterpolation,
    Objective,
    SpaceTime,
    SuperResolution,
    frame_loss,
)


class Recorder:
    """A loss that keeps what it compares."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.prediction, self.target = prediction, target
        return l1(prediction, target)


class Brightness(FrameInterpolator):
    title = "brightness"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        return self.scale * (before + after) / 2


class ScaledBicubic(FrameUpscaler):
    title = "scaled"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.bicubic = Bicubic()

    def forward(self, frames: Tensor) -> Tensor:
        self.seen = frames
        output: Tensor = self.bicubic(frames * self.scale)
        return output


@pytest.fixture
def batch() -> Batch:
    hr = torch.randint(0, 256, (2, 7, 3, 32, 48), generator=torch.Generator().manual_seed(0)) / 255
    return Batch(lr=downsample(hr[:, ::2]), hr=hr, names=["a", "b"], motions=["all", "all"])


def test_losses_are_sums() -> None:
    prediction, target = torch.full((2, 3, 4, 4), 0.75), torch.full((2, 3, 4, 4), 0.25)
    assert l1(prediction, target) == 48
    assert charbonnier(prediction, target).item() == pytest.approx(48, rel=1e-5)


def test_the_whole_task_compares_all_hr_frames(batch: Batch) -> None:
    recorder, system = Recorder(), TwoStage(interpolator=Blend(), upscaler=Bicubic())
    SpaceTime(recorder)(system, batch)
    assert torch.equal(recorder.prediction, system(batch.lr))
    assert torch.equal(recorder.target, batch.hr)


def test_interpolation_compares_missing_lr_frames_in_order(batch: Batch) -> None:
    recorder, system = Recorder(), TwoStage(interpolator=Brightness(), upscaler=Bicubic())
    loss = FrameInterpolation(partial(frame_loss, loss=recorder))(system, batch)
    for clip in range(2):
        for pair in range(3):
            made = (batch.lr[clip, pair] + batch.lr[clip, pair + 1]) / 2
            torch.testing.assert_close(recorder.prediction[3 * clip + pair], made)
            assert torch.equal(recorder.target[3 * clip + pair], downsample(batch.hr[clip, 2 * pair + 1]))
    loss.backward()
    assert system.interpolator.scale.grad != 0


def test_super_resolution_sees_true_lr_frames(batch: Batch) -> None:
    recorder, system = Recorder(), TwoStage(interpolator=Blend(), upscaler=ScaledBicubic())
    SuperResolution(recorder)(system, batch).backward()
    assert torch.equal(system.upscaler.seen[:, ::2], batch.lr)
    assert torch.equal(system.upscaler.seen[:, 1::2], downsample(batch.hr[:, 1::2]))
    assert torch.equal(recorder.target, batch.hr)
    assert system.upscaler.scale.grad != 0


def test_feature_interpolation_compares_synthesised_features_with_those_of_the_true_frames(
    small_network: Callable[..., ZoomingSlowMo], batch: Batch
) -> None:
    recorder, network = Recorder(), small_network()
    FeatureInterpolation(recorder)(network, batch).backward()
    for pair in range(3):
        torch.testing.assert_close(
            recorder.target[pair], network.features(downsample(batch.hr[:, 2 * pair + 1])), msg=f"pair {pair}"
        )
        alone = network.interpolation(network.extract(batch.lr[:, pair : pair + 2]))
        torch.testing.assert_close(recorder.prediction[pair], alone[1], msg=f"pair {pair}")


def test_feature_interpolation_trains_the_interpolation_alone(
    small_network: Callable[..., ZoomingSlowMo], batch: Batch
) -> None:
    network = small_network()
    FeatureInterpolation(charbonnier)(network, batch).backward()
    trained = {name.split(".")[0] for name, weight in network.named_parameters() if weight.grad is not None}
    assert trained == {"interpolation"}


def test_feature_reconstruction_compares_the_frames_of_the_whole_network_and_trains_its_end_alone(
    small_network: Callable[..., ZoomingSlowMo], batch: Batch
) -> None:
    recorder, network = Recorder(), small_network()
    FeatureReconstruction(recorder)(network, batch).backward()
    torch.testing.assert_close(recorder.prediction, network(batch.lr))
    assert torch.equal(recorder.target, batch.hr)
    trained = {name.split(".")[0] for name, weight in network.named_parameters() if weight.grad is not None}
    assert trained == {"reconstruction"}


def test_offsets_learn_the_flow_of_a_clip_and_nothing_else_changes(
    small_network: Callable[..., ZoomingSlowMo],
) -> None:
    hr = moving_frames(7, (64, 64), speed=8)[None] / 255
    batch = Batch(lr=downsample(hr[:, ::2]), hr=hr, names=["a"], motions=["all"])
    network = small_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    distances = []
    for _ in range(150):
        optimizer.zero_grad()
        distance = FlowGuidedOffsets()(network, batch)
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[-1] < 0.1 * distances[0]
    trained = {name.split(".")[0] for name, weight in network.named_parameters() if weight.grad is not None}
    assert trained == {"interpolation"}
    # Things move right: of each pair, the frame before is sampled to the left, the frame after to the right.
    fusion = network.interpolation.fusion
    with torch.no_grad():
        levels = fusion.offsets(*neighbours(network.extract(batch.lr), fusion))
    right = [torch.unflatten(offsets.level1, 1, (-1, 2))[:, :, 1, 4:-4, 4:-4].median().item() for offsets in levels]
    assert right == pytest.approx([-2, 2], abs=0.5)


def test_offsets_are_those_at_which_the_interpolation_samples(
    small_network: Callable[..., ZoomingSlowMo], batch: Batch
) -> None:
    network = small_network()
    fusion, sampled = network.interpolation.fusion, []
    for align in (fusion.align_first, fusion.align_second):
        for sampling in (align.sample1, align.sample2, align.sample3):
            sampling.offsets.register_forward_hook(lambda module, given, offset: sampled.append(offset))
    partners = neighbours(network.extract(batch.lr), fusion)
    asked = [level for levels in fusion.offsets(*partners) for level in levels]
    sampled.clear()
    fusion(*partners)
    for place, coarse_to_fine in enumerate((2, 1, 0, 5, 4, 3)):
        assert torch.equal(sampled[place], asked[coarse_to_fine])


def test_offsets_are_refused_where_there_are_none(small_network: Callable[..., ZoomingSlowMo], batch: Batch) -> None:
    with pytest.raises(InvalidInput, match="but NaiveInterpolation has none"):
        FlowGuidedOffsets()(small_network("a"), batch)


@pytest.mark.parametrize("objective", [FeatureInterpolation(l1), FeatureReconstruction(l1), FlowGuidedOffsets()])
def test_an_objective_of_a_part_refuses_a_two_stage_system(objective: Objective, batch: Batch) -> None:
    with pytest.raises(InvalidInput, match="use model=zooming_slow_mo"):
        objective(TwoStage(interpolator=Blend(), upscaler=Bicubic()), batch)


@pytest.mark.parametrize(
    ("objective", "part"),
    [
        ("feature_interpolation", "interpolation"),
        ("flow_guided_offsets", "interpolation"),
        ("feature_reconstruction", "reconstruction"),
    ],
)
def test_a_training_of_a_part_changes_it_alone(
    configure: Callable[..., DictConfig], tmp_path: Path, objective: str, part: str
) -> None:
    trained = []
    for chosen, steps in (("space_time", 1), (objective, 3)):
        folder = tmp_path / chosen
        first = f"initial_weights='{trained[0]}'" if trained else "initial_weights=null"
        settings = [f"objective={chosen}", f"trainer.max_steps={steps}", f"output_dir='{folder}'", first]
        train(configure("train", *SMALL_RUN, "ablation=b", *settings))
        trained.append(folder / "checkpoints" / "last.ckpt")
    before, after = (load_network(path).state_dict() for path in trained)
    changed = {name.split(".")[0] for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {part}


def test_frames_of_another_shape_are_refused_at_the_first_step(batch: Batch) -> None:
    """The loss would broadcast one channel over three, and only a validation would notice."""

    class Grey(FrameUpscaler):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, frames: Tensor) -> Tensor:
            return self.scale * frames.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)[:, :, :1]

    system = TwoStage(interpolator=Brightness(), upscaler=Grey())
    says = r"the network makes frames \(.*, 1, .*\); expected \(.*, 3, .*\)"
    for objective in (SpaceTime(l1), SuperResolution(l1)):
        with pytest.raises(InvalidInput, match=says):
            objective(system, batch)
    with pytest.raises(InvalidInput, match=r"the network makes frames \(.*, 1, .*\)"):
        frame_loss(lambda before, after: before[:, :1], *batch.lr[:, :3].unbind(1), loss=l1)


@pytest.mark.parametrize("objective", [FrameInterpolation(l1), SuperResolution(l1)], ids=lambda o: type(o).__name__)
def test_an_objective_of_a_stage_refuses_a_network_of_one_stage(objective: Any, batch: Batch) -> None:
    with pytest.raises(InvalidInput, match="experiment=two_stage/edvr"):
        objective(nn.Identity(), batch)


@pytest.mark.parametrize(("objective", "title"), [(FrameInterpolation(l1), "blend"), (SuperResolution(l1), "bicubic")])
def test_an_objective_refuses_a_stage_that_has_nothing_to_learn(
    configure: Callable[..., DictConfig], objective: Any, title: str, batch: Batch
) -> None:
    system = instantiate(configure("evaluate", "model=two_stage").model)
    with pytest.raises(InvalidInput, match=f"(?i){title}.* nothing to learn"):
        objective(system, batch)
    with pytest.raises(InvalidInput, match=f"(?i){title}.* nothing to learn"):
        objective.part(system)


def test_an_objective_tells_the_part_that_it_trains(small_network: Callable[..., ZoomingSlowMo]) -> None:
    one_stage = small_network()
    two_stage = TwoStage(interpolator=Brightness(), upscaler=ScaledBicubic())
    for network in (one_stage, two_stage):
        assert SpaceTime(l1).part(network) is network
    assert FrameInterpolation(l1).part(two_stage) is two_stage.interpolator
    assert SuperResolution(l1).part(two_stage) is two_stage.upscaler
    for objective in (FeatureInterpolation(l1), FlowGuidedOffsets()):
        assert objective.part(one_stage) is one_stage.interpolation
    assert FeatureReconstruction(l1).part(one_stage) is one_stage.reconstruction


def test_a_stage_is_trained_saved_and_given_to_another_system(
    configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Only what its objective trains changes; the checkpoint holds a whole system, whose stage another can load."""
    settings = [option for option in SMALL_RUN if not option.startswith("model.")]
    small = [
        "+frame_upscaler.channels=8",
        "+frame_upscaler.groups=1",
        "+frame_upscaler.blocks=1",
        "+frame_upscaler.reduction=2",
    ]
    config = configure(
        "train", "experiment=two_stage/rcan", *settings, *small, "trainer.max_steps=2", f"output_dir='{tmp_path}'"
    )
    train(config)
    saved = tmp_path / "checkpoints" / "last.ckpt"
    system = load_network(saved)
    assert isinstance(system, TwoStage)
    torch.manual_seed(config.seed)
    stage = instantiate(config.frame_upscaler)
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    load_stage(stage, saved)
    after = stage.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in system.upscaler.state_dict().items())
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert len(changed) > len(before) // 2
    assert not any("mean" in name for name in changed)


def test_a_checkpoint_of_another_optimizer_is_plain_values_too(
    configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Adamax keeps its betas as given, so they must not be Hydra's lists."""
    settings = [option for option in SMALL_RUN if not option.startswith("model.")]
    sizes = {"channels": "[4,4,4]", "taps": 5, "multiple_of": 8}
    small = [f"+frame_interpolator.{name}={size}" for name, size in sizes.items()]
    config = configure(
        "train", "experiment=two_stage/sepconv", *settings, *small, "trainer.max_steps=2", f"output_dir='{tmp_path}'"
    )
    train(config)
    assert isinstance(load_network(tmp_path / "checkpoints" / "last.ckpt"), TwoStage)
