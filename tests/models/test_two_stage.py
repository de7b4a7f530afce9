"""Two-stage systems keep the contract: any interpolator goes with any upscaler, and frames keep their places."""

from collections.abc import Callable
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from stvsr.config import CONFIG_DIR
from stvsr.errors import InvalidInput
from stvsr.evaluation.job import Job
from stvsr.models import chunking
from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_interpolation.superslomo import SuperSloMo
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.frame_upscaling.edvr import EDVR
from stvsr.models.frame_upscaling.rbpn import RBPN
from stvsr.models.frame_upscaling.rcan import RCAN
from stvsr.models.network import Stage
from stvsr.models.two_stage import FrameInterpolator, FrameUpscaler, TwoStage

PARAMETERS = {
    ("frame_interpolator", "superslomo"): 39_610_473,
    ("frame_interpolator", "sepconv"): 21_675_452,
    ("frame_interpolator", "dain"): 24_031_656,
    ("frame_upscaler", "rcan"): 15_592_379,
    ("frame_upscaler", "rbpn"): 12_771_943,
    ("frame_upscaler", "edvr"): 20_699_363,
    ("frame_interpolator", "blend"): 0,
    ("frame_upscaler", "bicubic"): 0,
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


class Beyond(FrameInterpolator):
    """Gives values above white in the first row and below black in the others."""

    title = "beyond"

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        made = torch.full_like(before, -0.5)
        made[..., 0, :] = 1.5
        return made


class Repeat(FrameUpscaler):
    """Repeats pixels, and remembers what it saw."""

    title = "repeat"

    def forward(self, frames: Tensor) -> Tensor:
        self.seen = frames
        return frames.repeat_interleave(4, -1).repeat_interleave(4, -2)


@pytest.mark.parametrize(("b", "n", "h", "w"), [(1, 2, 5, 7), (2, 4, 8, 6), (3, 3, 1, 9)])
def test_given_frames_keep_their_places_and_made_ones_lie_between(b: int, n: int, h: int, w: int) -> None:
    lr = torch.rand(b, n, 3, h, w)
    output = TwoStage(interpolator=Blend(), upscaler=Repeat())(lr)
    assert output.shape == (b, 2 * n - 1, 3, 4 * h, 4 * w)
    assert torch.equal(output[:, ::2, :, ::4, ::4], lr)
    torch.testing.assert_close(output[:, 1::2, :, 1::4, 2::4], (lr[:, 1:] + lr[:, :-1]) / 2)


def test_the_upscaler_sees_pictures() -> None:
    system = TwoStage(interpolator=Beyond(), upscaler=Repeat())
    system(torch.rand(1, 2, 3, 4, 4))
    made = system.upscaler.seen[:, 1]
    assert (made[..., 0, :] == 1).all()
    assert (made[..., 1:, :] == 0).all()


def test_large_pairs_are_interpolated_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def between(before: Tensor, after: Tensor) -> Tensor:
        seen.append(len(before))
        return (before + after) / 2

    interpolator, frames = Blend(), torch.rand(3, 3, 8, 8)
    monkeypatch.setattr(interpolator, "between", between)
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 2 * 8 * 8)
    with torch.no_grad():
        torch.testing.assert_close(interpolator(frames, frames), frames)
    interpolator(frames, frames)
    assert seen == [2, 1, 3], "with gradients all are kept anyway"


@pytest.mark.parametrize(
    ("upscaler", "reach"),
    [
        (Bicubic(), 0),
        (EDVR(channels=8, hr_channels=4, frames=5, deformable_groups=2, feature_blocks=1, reconstruction_blocks=1), 1),
        (EDVR(channels=8, hr_channels=4, frames=7, deformable_groups=2, feature_blocks=1, reconstruction_blocks=1), 2),
        (RBPN(lr_channels=8, hr_channels=4, stages=2, blocks=1, frames=3), 1),
    ],
)
def test_a_frame_depends_on_lr_frames_within_reach_and_on_none_beyond(upscaler: FrameUpscaler, reach: int) -> None:
    # In float64: clips of a batch may be rounded differently, and an untrained network hardly looks at neighbours.
    system = TwoStage(interpolator=Blend(), upscaler=upscaler).eval().double()
    assert system.reach == reach
    lr = torch.rand(1, 9, 3, 16, 16, dtype=torch.float64).repeat(5, 1, 1, 1, 1)
    # Each clip but the first has another frame: on either side, the first beyond reach or the last within.
    for clip, at in enumerate((2 - reach, 3 - reach, 5 + reach, 6 + reach), start=1):
        lr[clip, at] = torch.rand(3, 16, 16)
    with torch.no_grad():
        # The output for a window of the three middle LR frames.
        before, *after = system(lr)[:, 6:11]
    differences = [(clip - before).abs().max().item() for clip in after]
    assert [difference > 1e-9 for difference in differences] == [False, True, True, False], differences


@pytest.mark.parametrize(
    ("stage", "says"),
    [(RBPN, "DIS"), (RCAN, "quarters"), (SuperSloMo, "resize")],
)
def test_where_a_network_differs_from_its_authors_program_tables_say_it(stage: type[Stage], says: str) -> None:
    job = SimpleNamespace(network=SimpleNamespace(stages={"stage": stage}))
    assert any(line.startswith(f"{stage.title}: ") and says in line for line in Job.notes(job))  # type: ignore[arg-type]


def test_one_frame_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 2"):
        TwoStage(interpolator=Blend(), upscaler=Bicubic())(torch.rand(1, 1, 3, 8, 8))


@pytest.mark.parametrize("group", ["frame_interpolator", "frame_upscaler"])
def test_every_option_is_a_stage_of_the_size_that_was_counted(configure: Callable[..., DictConfig], group: str) -> None:
    """The counts are those of the authors' networks; the paper's table differs where `notes` say why."""
    for option in options(group):
        with torch.device("meta"):
            stage = instantiate(configure("evaluate", "model=two_stage", f"{group}={option}")[group])
        assert isinstance(stage, Stage)
        assert stage.option == option
        assert sum(parameter.numel() for parameter in stage.parameters()) == PARAMETERS[group, option]
        assert bool(stage.weight_files) == (PARAMETERS[group, option] > 0)


def test_there_are_sixteen_combinations(configure: Callable[..., DictConfig]) -> None:
    pairs = list(product(options("frame_interpolator"), options("frame_upscaler")))
    assert len(pairs) == 16
    # Each option once is enough: the two groups are independent.
    for interpolator, upscaler in pairs[::5]:
        config = configure(
            "evaluate", "model=two_stage", f"frame_interpolator={interpolator}", f"frame_upscaler={upscaler}"
        )
        targets = (config.model.interpolator._target_, config.model.upscaler._target_)
        assert [target.split(".")[-2] for target in targets] == [interpolator, upscaler]
        assert set(config.weights) >= {interpolator, upscaler} - {"blend", "bicubic"}


@pytest.mark.parametrize("experiment", options("experiment/two_stage"))
def test_every_two_stage_experiment_trains_the_network_it_is_called_after(
    configure: Callable[..., DictConfig], experiment: str
) -> None:
    config = configure("train", f"experiment=two_stage/{experiment}")
    assert config.variant == experiment
    # SepConv and DAIN were trained with AdaMax's usual betas; the one-stage network has others.
    if config.optimizer._target_.endswith("Adamax"):
        assert config.optimizer.betas == [0.9, 0.999]
    targets = [config.model.interpolator._target_, config.model.upscaler._target_]
    named = [target.split(".")[-2] for target in targets]
    objective = config.objective._target_.rpartition(".")[2]
    if experiment == "end_to_end":
        assert (named, objective) == (["sepconv", "edvr"], "SpaceTime")
    else:
        assert (named, objective) in (
            ([experiment, "bicubic"], "FrameInterpolation"),
            (["blend", experiment], "SuperResolution"),
        )


def test_a_stage_that_is_frozen_has_learned_all_the_same() -> None:
    assert SuperSloMo(channels=(4,) * 6).requires_grad_(False).learns
