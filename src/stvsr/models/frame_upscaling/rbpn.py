"""RBPN: recurrent back-projection network, each frame with three before and three after it.

For one neighbour after the other, the frame's features are enlarged by back-projection and complemented by those of
the neighbour and the optical flow to it; reduced again, the result is what the next neighbour starts from. The output
is computed from the HR features of all steps.

Deviation: the authors compute flow by pyflow, and train with it. Here it is OpenCV's DIS, run up to full resolution:
on smooth motion as accurate as pyflow, and 0.1 to 0.15 pixels from it. The effect on PSNR has not been measured.

Limits: flow is computed on the CPU, and is not differentiated.

Reference: M. Haris, G. Shakhnarovich and N. Ukita, "Recurrent Back-Projection Network for Video Super-Resolution",
CVPR 2019.
"""

import torch
from torch import Tensor, nn

from stvsr.data.clip import to_8bit
from stvsr.data.optical_flow import optical_flow
from stvsr.errors import InvalidInput
from stvsr.models.blocks import conv3x3, exact_conv, start_as_he
from stvsr.models.frame_upscaling.back_projection import (
    BackProjection,
    PReLUBlock,
    activated,
    enlarging,
    reducing,
)
from stvsr.models.two_stage import FrameUpscaler
from stvsr.models.weight_files import WeightFile

RENAMING = (
    (r"\.deconv\.", ".conv."),
    (r"(up|down)_conv1\.", "there."),
    (r"(up|down)_conv2\.", "back."),
    (r"(up|down)_conv3\.", "correct."),
    *((rf"^DBPN\.(up|down){place + 1}\.", rf"single_frame.\1s.{place}.") for place in range(3)),
    (r"^DBPN\.feat1\.", "single_frame.reduce."),
    (r"^DBPN\.output\.conv\.", "single_frame.merge."),
    (r"^feat0\.", "frame_features."),
    (r"^feat1\.", "pair_features."),
    (r"^res_feat1\.", "multi_frame."),
    (r"^res_feat2\.", "residual."),
    (r"^res_feat3\.", "decode."),
    (r"^output\.conv\.", "output."),
)


class RBPN(FrameUpscaler):
    """Recurrent back-projection network.

    Args:
        lr_channels: width of LR feature maps.
        hr_channels: width of HR feature maps, and of those inside the back-projection.
        stages: number of up-projections in the back-projection.
        blocks: residual blocks of each trunk.
        frames: frames in a window: the frame itself and as many before as after it.

    Raises:
        InvalidInput: `frames` is even or below 3, or `stages` below 1.
    """

    title = "RBPN"
    weight_files = (
        WeightFile("RBPN_4x.pth", "github.com/alterzero/RBPN-PyTorch", "res_feat1.5.deconv.weight", renaming=RENAMING),
    )
    notes = (
        "optical flow by OpenCV's DIS, not pyflow",
        "12.77 M parameters, which the paper's table cuts to 12.7 M",
    )

    def __init__(
        self, *, lr_channels: int = 256, hr_channels: int = 64, stages: int = 3, blocks: int = 5, frames: int = 7
    ) -> None:
        super().__init__()
        if frames < 3 or frames % 2 == 0:
            raise InvalidInput(f"frames={frames}; expected an odd number of at least 3")
        if stages < 1:
            raise InvalidInput(f"stages={stages}; expected 1 or more")
        self.reach = frames // 2
        self.frame_features = activated(conv3x3(3, lr_channels))
        self.pair_features = activated(conv3x3(8, lr_channels))  # two frames and the flow
        self.single_frame = BackProjection(in_channels=lr_channels, channels=hr_channels, stages=stages)
        self.multi_frame = trunk(blocks, lr_channels, then=enlarging(lr_channels, hr_channels))
        self.residual = trunk(blocks, hr_channels, then=activated(conv3x3(hr_channels, hr_channels)))
        self.decode = trunk(blocks, hr_channels, then=reducing(hr_channels, lr_channels))
        self.output = conv3x3(2 * self.reach * hr_channels, 3)
        # He's initialisation, made for PReLU: with PyTorch's default the first outputs are too faint to learn from.
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                start_as_he(module)

    def forward(self, frames: Tensor) -> Tensor:
        """See `FrameUpscaler`; works frame by frame, as HR feature maps are large."""
        stored = to_8bit(frames.detach())
        enlarged = []
        for number in range(frames.shape[1]):
            places = self._neighbours(number, frames.shape[1])
            pairs = [(number, place) for place in places]
            flows = torch.stack([optical_flow(clip, pairs, finest_scale=0) for clip in stored]).to(frames.dtype)
            enlarged.append(self.enlarge(frames[:, number], frames[:, places], flows))
        return torch.stack(enlarged, dim=1)

    def enlarge(self, target: Tensor, neighbours: Tensor, flows: Tensor) -> Tensor:
        """The network as published.

        Args:
            target: `(b, 3, h, w)`, RGB in [0, 1].
            neighbours: `(b, n, 3, h, w)`, the other frames of the window, in order of time.
            flows: `(b, n, 2, h, w)`, from the target to each neighbour, x then y, in pixels.

        Returns:
            `(b, 3, 4h, 4w)`, not clamped.
        """
        target = target.contiguous(memory_format=torch.channels_last)
        features, shares = self.frame_features(target), []
        for index in range(neighbours.shape[1]):
            pair = self.pair_features(torch.cat([target, neighbours[:, index], flows[:, index]], dim=1))
            share, features = self._step(features, pair, index)
            shares.append(share)
        return torch.stack(shares).sum(dim=0)

    def _step(self, features: Tensor, pair: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Processes one neighbour: its contribution to the output, and the features that the next one starts from.

        HR features stay local to it, so that those of all steps need not be kept.
        """
        single = self.single_frame(features)
        hr = self.residual(single - self.multi_frame(pair)).add_(single)
        last = index == 2 * self.reach - 1
        contribution = exact_conv(self.output, hr, index * hr.shape[1])
        return contribution, features if last else self.decode(hr)

    def _neighbours(self, number: int, count: int) -> list[int]:
        """The other frames of a frame's window; the frame itself replaces those that do not exist."""
        window = range(number - self.reach, number + self.reach + 1)
        return [place if 0 <= place < count else number for place in window if place != number]


def trunk(blocks: int, channels: int, *, then: nn.Module) -> nn.Sequential:
    """Residual blocks followed by another module."""
    return nn.Sequential(*(PReLUBlock(channels) for _ in range(blocks)), then)
