"""The stages of two-stage systems that have published weights, and how their files are recognised."""

from typing import Any

from torch import Tensor, nn

from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_interpolation.dain import DAIN
from stvsr.models.frame_interpolation.sepconv import SepConv
from stvsr.models.frame_interpolation.superslomo import SuperSloMo
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.frame_upscaling.edvr import EDVR
from stvsr.models.frame_upscaling.rbpn import RBPN
from stvsr.models.frame_upscaling.rcan import RCAN
from stvsr.models.network import Stage
from stvsr.models.two_stage import FrameInterpolator, TwoStage
from stvsr.models.weight_files import WeightFile, load_weights

STAGES: tuple[type[Stage], ...] = (SuperSloMo, SepConv, DAIN, RCAN, RBPN, EDVR)

WITHOUT_LEARNING: dict[str, type[Stage]] = {"interpolator": Blend, "upscaler": Bicubic}


def target_of(network: type[nn.Module]) -> str:
    """The `_target_` by which a model config names a class."""
    return f"{network.__module__}.{network.__qualname__}"


def kind_of(stage: type[Stage], tensors: dict[str, Tensor]) -> WeightFile | None:
    """Which of a network's published files tensors come from; None if from none."""
    return next((kind for kind in stage.weight_files if kind.fits(tensors)), None)


def from_published(tensors: dict[str, Tensor], *, origin: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """A published stage as a complete system, whose other stage is that of `WITHOUT_LEARNING`.

    Args:
        tensors: of a file, by name.
        origin: the file, for messages.

    Returns:
        The model config and the state dict; None if the file is of none of `STAGES`.

    Raises:
        InvalidInput: the file is recognised, but its tensors do not fit the network.
    """
    for stage in STAGES:
        if (kind := kind_of(stage, tensors)) is not None:
            network = stage()
            load_weights(network, tensors, kind, origin=origin)
            role = "interpolator" if issubclass(stage, FrameInterpolator) else "upscaler"
            stages = {**WITHOUT_LEARNING, role: stage}
            config = {name: {"_target_": target_of(stage_class)} for name, stage_class in stages.items()}
            weights = {f"{role}.{name}": tensor for name, tensor in network.state_dict().items()}
            return {"_target_": target_of(TwoStage), **config}, weights
    return None
