"""The loss of Super SloMo (Jiang et al., CVPR 2018, Sec. 3.3), for frames in [0, 1] and the time in the middle.

Four terms: the middle frame's difference, the same in features of a recognition network, how well flows warp one frame
into another, how smooth they are. The paper gives weights for values 0..255; those of the terms in grey levels are 255
times as large here. The paper's norms are means; here their sum is multiplied by the number of values in the middle
frames, as all losses of this package are sums.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16
from torchvision.transforms.functional import normalize

from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.superslomo import SuperSloMo, warp

CONV4_3 = 22
"""Number of VGG-16 layers up to and including conv4_3, without its activation."""


class PerceptualFeatures:
    """Features of a frame from VGG-16, trained on ImageNet.

    Not a module, so that its weights are neither trained nor saved.

    Raises:
        InvalidInput: the weights are not on this machine and cannot be downloaded.
    """

    def __init__(self) -> None:
        weights: Any = VGG16_Weights.DEFAULT
        try:
            network = vgg16(weights=weights)
        except Exception as error:
            # A failed download may raise anything.
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise InvalidInput(
                f"perceptual: the weights of VGG-16 are not in {folder} and could not be downloaded ({error}); "
                f"put {Path(weights.url).name} of torchvision there, or add objective.loss.perceptual=0"
            ) from None
        self.layers: nn.Sequential = network.features[:CONV4_3].eval().requires_grad_(False)
        preset = weights.transforms()
        self.mean: Sequence[float] = preset.mean
        self.std: Sequence[float] = preset.std

    def __call__(self, frames: Tensor) -> Tensor:
        """RGB frames `(b, 3, h, w)` in [0, 1], sides of at least 8, to `(b, 512, h/8, w/8)`."""
        features: Tensor = self.layers.to(frames)(normalize(frames, self.mean, self.std))
        return features


SMALLEST = 8
"""Least height and width, of which three poolings leave one pixel."""


class SuperSloMoLoss:
    """The weighted sum of the four terms.

    Args:
        reconstruction: weight of the middle frame's mean absolute difference.
        perceptual: weight of the mean squared difference of VGG-16's features (conv4_3); 0 needs no VGG-16.
        warping: weight of the mean absolute differences between a frame and another one warped to its time: the given
            frames to each other by the flow between them, both to the middle by the uncorrected flow.
        smoothness: weight of the mean absolute differences of neighbours in the flow between the given frames.

    Raises:
        InvalidInput: VGG-16's weights are needed and cannot be had, or `perceptual` is negative.
    """

    def __init__(self, *, reconstruction: float, perceptual: float, warping: float, smoothness: float) -> None:
        if not perceptual >= 0:
            raise InvalidInput(f"objective.loss.perceptual={perceptual}; expected 0 or more")
        self.reconstruction = reconstruction
        self.perceptual = perceptual
        self.warping = warping
        self.smoothness = smoothness
        self.features = PerceptualFeatures() if perceptual > 0 else None

    def __call__(self, interpolator: SuperSloMo, before: Tensor, after: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch of triplets.

        Args:
            interpolator: the network to train.
            before: `(b, 3, h, w)`, RGB in [0, 1].
            after: the same shape.
            target: the frame in the middle, the same shape.

        Returns:
            A scalar.

        Raises:
            InvalidInput: another interpolator, or frames too small for VGG-16.
        """
        if not isinstance(interpolator, SuperSloMo):
            raise InvalidInput(
                f"the objective is for SuperSloMo, but the interpolator is {type(interpolator).__name__}: use "
                "frame_interpolator=superslomo, or objective=frame_interpolation_l1"
            )
        h, w = target.shape[-2:]
        if self.features is not None and min(h, w) < SMALLEST:
            raise InvalidInput(
                f"perceptual: frames of {w}x{h} are too small for VGG-16; expected sides of {SMALLEST} or more: choose "
                f"loader.crop={SMALLEST} or more, or objective.loss.perceptual=0"
            )

        def difference(a: Tensor, b: Tensor) -> Tensor:
            return F.l1_loss(a[..., :h, :w], b[..., :h, :w])

        first, second, middle = (interpolator.prepare(frames) for frames in (before, after, target))
        output = interpolator.synthesise(first, second)
        warped_difference = (
            difference(warp(second, output.forward_flow), first)
            + difference(warp(first, output.backward_flow), second)
            + difference(output.warped_before, middle)
            + difference(output.warped_after, middle)
        )
        loss = self.reconstruction * difference(output.frame, middle) + self.warping * warped_difference
        flows = (output.forward_flow, output.backward_flow)
        loss += self.smoothness * sum(roughness(flow[..., :h, :w]) for flow in flows)
        if self.features is not None:
            frame = output.frame[..., :h, :w] + interpolator.mean_colour
            loss += self.perceptual * F.mse_loss(self.features(frame), self.features(target))
        return loss * target.numel()


def roughness(flow: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, across and down, of `(b, 2, h, w)`."""
    return flow.diff(dim=-1).abs().mean() + flow.diff(dim=-2).abs().mean()
