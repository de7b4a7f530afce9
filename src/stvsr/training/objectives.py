"""What is learned from a batch: the whole task at once, or what one stage of a two-stage system has to do.

An objective maps a network and a batch to a loss, a sum over everything. The stages of a two-stage system are trained
apart: the interpolator on LR frames, of which the missing ones are made from the HR clip as the given ones were; the
upscaler on true LR frames, all of them. The interpolation of a one-stage network can be trained alone as well, on
features. LR frames made here know nothing beyond the crop: at its border, two pixels wide, they differ a little from
those of the whole frame.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stvsr.data.clip import Batch
from stvsr.data.degradation import downsample
from stvsr.errors import InvalidInput
from stvsr.models.interpolation import DeformableInterpolation, neighbours
from stvsr.models.requirements import Stage
from stvsr.models.two_stage import FrameInterpolator, TwoStage
from stvsr.models.zooming_slow_mo import ZoomingSlowMo
from stvsr.training.offset_guidance import flow_from_missing, offset_fidelity

Trained = Callable[[Tensor], Tensor]
"""A network, or something that gives what it gives."""

Objective = Callable[[Trained, Batch], Tensor]

Loss = Callable[[Tensor, Tensor], Tensor]

InterpolationLoss = Callable[[FrameInterpolator, Tensor, Tensor, Tensor], Tensor]


def space_time(network: Trained, batch: Batch, *, loss: Loss) -> Tensor:
    """The whole task: all HR frames from the given LR frames. Any network."""
    return loss(network(batch.lr), batch.hr)


def frame_interpolation(network: Trained, batch: Batch, *, loss: InterpolationLoss) -> Tensor:
    """LR triplets: each missing LR frame from the given ones before and after it. A `TwoStage`.

    Args:
        network: of which the interpolator is trained.
        batch: clips.
        loss: of the interpolator, two frames `(b, 3, h, w)` and the one between.
    """
    missing = downsample(batch.hr[:, 1::2])
    before, after = batch.lr[:, :-1], batch.lr[:, 1:]
    interpolator = _two_stage(network).interpolator
    _check_learns(interpolator)
    return loss(interpolator, *(frames.flatten(0, 1) for frames in (before, after, missing)))


def of_prediction(
    interpolator: FrameInterpolator, before: Tensor, after: Tensor, target: Tensor, *, loss: Loss
) -> Tensor:
    """An interpolation loss that looks at the frame alone."""
    return loss(interpolator(before, after), target)


def super_resolution(network: Trained, batch: Batch, *, loss: Loss) -> Tensor:
    """LR to HR: every HR frame from the true LR frames. A `TwoStage`, of which the upscaler is trained."""
    upscaler = _two_stage(network).upscaler
    _check_learns(upscaler)
    return loss(upscaler(downsample(batch.hr)), batch.hr)


def feature_interpolation(network: Trained, batch: Batch, *, loss: Loss) -> Tensor:
    """The interpolation of a `ZoomingSlowMo` alone: features between frames against those of the true LR frame there.

    Not in the paper, which trains everything at once. Features are extracted without gradients, and neither propagated
    nor reconstructed: a step costs a fraction of one of the whole task. The features of a missing frame then mean what
    those of a given one do, and the rest of the network, which learned from given ones, shows them as sharp.
    """
    one_stage = _one_stage(network)
    with torch.no_grad():
        given, missing = (one_stage.extract(frames) for frames in (batch.lr, downsample(batch.hr[:, 1::2])))
    return loss(one_stage.interpolation(given)[1::2], missing)


def flow_guided_offsets(network: Trained, batch: Batch) -> Tensor:
    """The offsets of the interpolation of a `ZoomingSlowMo` alone, towards optical flow (`offset_guidance`).

    Nothing is sampled. What `feature_interpolation` then has to learn is where flow is wrong, and how to blend.
    """
    one_stage = _one_stage(network)
    if not isinstance(one_stage.interpolation, DeformableInterpolation):
        raise InvalidInput(
            f"the objective trains offsets, which {type(one_stage.interpolation).__name__} has none of: use "
            "model/interpolation=deformable, or objective=space_time"
        )
    fusion = one_stage.interpolation.fusion
    with torch.no_grad():
        given = one_stage.extract(batch.lr)
    offsets = fusion.offsets(*neighbours(given, fusion))
    flow = flow_from_missing(batch.hr)
    return torch.stack(
        [offset_fidelity(level, way) for levels, way in zip(offsets, flow, strict=True) for level in levels]
    ).sum()


def trained_part(objective: Objective, network: nn.Module) -> nn.Module:
    """What an objective trains of a network, nearly all of it or a part; the whole where nothing else is known."""
    function = getattr(objective, "func", objective)
    if isinstance(network, TwoStage) and function is frame_interpolation:
        return network.interpolator
    if isinstance(network, TwoStage) and function is super_resolution:
        return network.upscaler
    if isinstance(network, ZoomingSlowMo) and function in (feature_interpolation, flow_guided_offsets):
        return network.interpolation
    return network


def _one_stage(network: Trained) -> ZoomingSlowMo:
    if not isinstance(network, ZoomingSlowMo):
        raise InvalidInput(
            "the objective trains the interpolation of a one-stage network, the network is a "
            f"{type(network).__name__}: use model=zooming_slow_mo and cuda_graphs=false, or objective=space_time"
        )
    return network


def _two_stage(network: Trained) -> TwoStage:
    if not isinstance(network, TwoStage):
        raise InvalidInput(
            f"the objective trains a stage of a two-stage system, the network is a {type(network).__name__}: use "
            "model=two_stage, or objective=space_time"
        )
    return network


def _check_learns(stage: Stage) -> None:
    if not any(True for _ in stage.parameters()):
        raise InvalidInput(
            f"the objective trains {stage.title}, which has nothing to learn: choose another network for that stage, "
            "or another objective"
        )
