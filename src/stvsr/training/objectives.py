"""What is learned from a batch: the whole task at once, or the task of one part of a network.

An objective maps a network and a batch to a loss, a sum over everything, and says which part of the network it trains.
The stages of a two-stage system are trained separately: the interpolator on LR frames, the missing ones made from the
HR clip as the given ones were; the upscaler on true LR frames at all times. In a one-stage network, the interpolation
(on features), its sampling offsets (towards optical flow) and the reconstruction can be trained alone. LR frames made
here know only the crop: at its border, two pixels wide, they differ slightly from those of the whole frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from stvsr.data.clip import Batch
from stvsr.data.degradation import downsample
from stvsr.errors import InvalidInput
from stvsr.models.interpolation import DeformableInterpolation, neighbours
from stvsr.models.network import Forward, Stage, learns
from stvsr.models.two_stage import FrameInterpolator, FrameUpscaler, TwoStage
from stvsr.models.zooming_slow_mo import ZoomingSlowMo
from stvsr.training.offset_guidance import flow_from_missing, offset_fidelity

Loss = Callable[[Tensor, Tensor], Tensor]

AnyStage = TypeVar("AnyStage", bound=Stage)

InterpolationLoss = Callable[[FrameInterpolator, Tensor, Tensor, Tensor], Tensor]


class Objective(Protocol):
    """What is learned from a batch."""

    def part(self, network: nn.Module) -> nn.Module:
        """The smallest module that holds everything that is trained; some of its parameters may get no gradients.

        Raises:
            InvalidInput: the network has no such part, or nothing in it to learn.
        """
        ...

    def __call__(self, network: Forward, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar; errors as `part`."""
        ...


@dataclass(frozen=True)
class SpaceTime:
    """The whole task: all HR frames from the given LR frames. For any network.

    Attributes:
        loss: of all frames, `(b, 2n-1, 3, 4h, 4w)`.
    """

    loss: Loss

    def part(self, network: nn.Module) -> nn.Module:
        """The whole network."""
        if not learns(network):
            raise InvalidInput("the network has nothing to learn; choose another model, or other stages of it")
        return network

    def __call__(self, network: Forward, batch: Batch) -> Tensor:
        """The loss of the frames of a batch."""
        return self.loss(_of_target_shape(network(batch.lr), batch.hr), batch.hr)


@dataclass(frozen=True)
class FrameInterpolation:
    """LR triplets: each missing LR frame from the given ones before and after it. For a `TwoStage`.

    Attributes:
        loss: of the interpolator, the frames before and after, and the true one between, `(b, 3, h, w)`.
    """

    loss: InterpolationLoss

    def part(self, network: Forward) -> FrameInterpolator:
        """The interpolator."""
        return _learning(_two_stage(network).interpolator)

    def __call__(self, network: Forward, batch: Batch) -> Tensor:
        """The loss of all triplets of a batch."""
        missing = downsample(batch.hr[:, 1::2])
        before, after = batch.lr[:, :-1], batch.lr[:, 1:]
        return self.loss(self.part(network), *(frames.flatten(0, 1) for frames in (before, after, missing)))


def frame_loss(interpolator: FrameInterpolator, before: Tensor, after: Tensor, target: Tensor, *, loss: Loss) -> Tensor:
    """An interpolation loss that compares only the frame with the target."""
    return loss(_of_target_shape(interpolator(before, after), target), target)


@dataclass(frozen=True)
class SuperResolution:
    """LR to HR: every HR frame from the true LR frames. For a `TwoStage`.

    Attributes:
        loss: of all frames, `(b, 2n-1, 3, 4h, 4w)`.
    """

    loss: Loss

    def part(self, network: Forward) -> FrameUpscaler:
        """The upscaler."""
        return _learning(_two_stage(network).upscaler)

    def __call__(self, network: Forward, batch: Batch) -> Tensor:
        """The loss of the frames of a batch."""
        return self.loss(_of_target_shape(self.part(network)(downsample(batch.hr)), batch.hr), batch.hr)


@dataclass(frozen=True)
class FeatureInterpolation:
    """The interpolation of a `ZoomingSlowMo` alone: interpolated features against those of the true missing LR frame.

    Not in the paper, which trains everything at once. Features are extracted without gradients, and neither propagated
    nor reconstructed: a step costs a fraction of one of the whole task. A missing frame's features then resemble those
    of a given one, and the rest of the network, which was trained on given ones, renders them as sharp.

    Attributes:
        loss: of the features of all missing frames, `(n-1, b, c, h, w)`.
    """

    loss: Loss

    def part(self, network: Forward) -> nn.Module:
        """The interpolation."""
        return _one_stage(network).interpolation

    def __call__(self, network: Forward, batch: Batch) -> Tensor:
        """The loss of the features of a batch."""
        one_stage = _one_stage(network)
        with torch.no_grad():
            given, missing = (one_stage.extract(frames) for frames in (batch.lr, downsample(batch.hr[:, 1::2])))
        return self.loss(one_stage.interpolation(given)[1::2], missing)


@dataclass(frozen=True)
class FlowGuidedOffsets:
    """The sampling offsets in the interpolation of a `ZoomingSlowMo` alone, towards optical flow (`offset_guidance`).

    Nothing is sampled. `FeatureInterpolation` then only has to learn where the flow is wrong, and how to blend.
    """

    def part(self, network: Forward) -> DeformableInterpolation:
        """The interpolation; what follows its offsets gets no gradients."""
        interpolation = _one_stage(network).interpolation
        if not isinstance(interpolation, DeformableInterpolation):
            raise InvalidInput(
                f"the objective trains sampling offsets, but {type(interpolation).__name__} has none: use "
                "model/interpolation=deformable, or objective=space_time"
            )
        return interpolation

    def __call__(self, network: Forward, batch: Batch) -> Tensor:
        """The distance of the offsets of a batch from flow, in pixels, summed."""
        fusion = self.part(network).fusion
        with torch.no_grad():
            given = _one_stage(network).extract(batch.lr)
        offsets = fusion.offsets(*neighbours(given, fusion))
        flow = flow_from_missing(batch.hr)
        return torch.stack(
            [
                offset_fidelity(level, direction)
                for levels, direction in zip(offsets, flow, strict=True)
                for level in levels
            ]
        ).sum()


@dataclass(frozen=True)
class FeatureReconstruction:
    """The reconstruction of a `ZoomingSlowMo` alone: HR frames from the features of the rest, which stays as it is.

    Not in the paper, which trains everything at once. The recurrence, most of a step's cost on a CPU, runs without
    gradients.

    Attributes:
        loss: of all frames, `(b, 2n-1, 3, 4h, 4w)`.
    """

    loss: Loss

    def part(self, network: Forward) -> nn.Module:
        """The reconstruction."""
        return _one_stage(network).reconstruction

    def __call__(self, network: Forward, batch: Batch) -> Tensor:
        """The loss of the frames of a batch."""
        one_stage = _one_stage(network)
        with torch.no_grad():
            features = one_stage.propagate(batch.lr)
        return self.loss(one_stage.reconstruct(features), batch.hr)


def check_loss(loss: object) -> None:
    """Refuses what cannot be called with a prediction and its target.

    Raises:
        InvalidInput: it is not callable, or it is a class in place of an instance.
    """
    if not callable(loss):
        raise InvalidInput(f"objective.loss={loss}; expected a function, such as that of objective=space_time")
    loss_class = getattr(loss, "func", None)
    if isinstance(loss_class, type):
        raise InvalidInput(
            f"objective.loss: {loss_class.__name__} is a class, which would be instantiated for each prediction; add "
            "objective.loss._partial_=false, and make it return a sum"
        )


def _of_target_shape(frames: Tensor, target: Tensor) -> Tensor:
    """The frames, if they have the shape of the target; a loss might broadcast others."""
    if frames.shape != target.shape:
        raise InvalidInput(f"the network makes frames {tuple(frames.shape)}; expected {tuple(target.shape)}: fix it")
    return frames


def _one_stage(network: Forward) -> ZoomingSlowMo:
    if not isinstance(network, ZoomingSlowMo):
        raise InvalidInput(
            "the objective trains a part of a one-stage network, but the network is a "
            f"{type(network).__name__}: use model=zooming_slow_mo, or objective=space_time"
        )
    return network


def _two_stage(network: Forward) -> TwoStage:
    if not isinstance(network, TwoStage):
        raise InvalidInput(
            f"the objective trains a stage of a two-stage system, but the network is a {type(network).__name__}: use "
            "an experiment of two_stage, such as experiment=two_stage/edvr, or objective=space_time"
        )
    return network


def _learning(stage: AnyStage) -> AnyStage:
    if not stage.learns:
        raise InvalidInput(
            f"the objective trains {stage.title}, which has nothing to learn: choose another network for that stage, "
            "or another objective"
        )
    return stage
