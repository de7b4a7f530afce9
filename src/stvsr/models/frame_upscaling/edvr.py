"""EDVR: every frame from a window of seven, aligned in feature space and fused by attention (Wang et al., CVPRW 2019).

Zooming Slow-Mo's alignment is derived from EDVR's: the same pyramid and sampling, followed here by one more sampling
at full resolution, the cascade. Features of all frames of the window, the middle one included, are sampled towards
the middle frame, fused (`tsa_fusion.py`) and reconstructed; the bilinearly enlarged middle frame is added.

At the ends of a sequence, frames missing on one side of a window are replaced by frames beyond its other side, as the
authors do at the ends of Vid4's clips. In a sequence shorter than a window, which has none there, frames are mirrored
at the ends instead.

Each frame's features are computed once. Without gradients only those of one window are kept, whatever the sequence's
length: with the default sizes about 30 kB for each LR pixel at the peak. With gradients memory grows with the number
of windows, one for each frame.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.data.clip import SCALE
from stvsr.errors import InvalidInput
from stvsr.models.alignment import DeformableSampling, FeaturePyramid, PCDAlignment, Pyramid
from stvsr.models.blocks import conv3x3, conv_part, leaky_relu
from stvsr.models.features import FeatureExtraction
from stvsr.models.frame_upscaling.tsa_fusion import TSAFusion
from stvsr.models.network import pad_to_multiple
from stvsr.models.reconstruction import Reconstruction
from stvsr.models.released import RENAMING
from stvsr.models.two_stage import FrameUpscaler
from stvsr.models.weight_files import WeightFile

MULTIPLE = 4
"""The features' height and width are halved twice."""

FROM_AUTHORS = (
    # Parts shared with Zooming Slow-Mo have the same names in its authors' code.
    *RENAMING,
    (r"^interpolation\.fusion\.", ""),
    (r"^pcd_align\.cas_offset_conv(\d)\.", r"cascade.offset\1."),
    (r"^pcd_align\.cas_dcnpack\.", "cascade.sample."),
    (r"^pcd_align\.", "align."),
    (r"^tsa_fusion\.", "fusion."),
    (r"\.tAtt_1\.", ".temporal.embed."),
    (r"\.tAtt_2\.", ".temporal.embed_middle."),
    (r"\.fea_fusion\.", ".fuse."),
    (r"\.sAtt_1\.", ".spatial.conv1."),
    (r"\.sAtt_2\.", ".spatial.down2."),
    (r"\.sAtt_L1\.", ".spatial.conv2."),
    (r"\.sAtt_L2\.", ".spatial.down3."),
    (r"\.sAtt_L3\.", ".spatial.conv3."),
    (r"\.sAtt_3\.", ".spatial.lateral2."),
    (r"\.sAtt_4\.", ".spatial.merge2."),
    (r"\.sAtt_5\.", ".spatial.merge1."),
    (r"\.sAtt_add_(\d)\.", r".shift\1."),
)

FROM_BASICSR = (
    # First from BasicSR's names to the authors'.
    (r"^conv_l(\d)_(\d)\.", r"fea_L\1_conv\2."),
    (r"\.offset_conv(\d)\.l(\d)\.", r".L\2_offset_conv\1."),
    (r"\.dcn_pack\.l(\d)\.", r".L\1_dcnpack."),
    (r"\.conv_offset\.", ".conv_offset_mask."),
    (r"\.feat_conv\.l(\d)\.", r".L\1_fea_conv."),
    (r"^fusion\.", "tsa_fusion."),
    # Swapped: BasicSR's first one embeds the middle frame.
    (r"\.temporal_attn1\.", ".tAtt_2."),
    (r"\.temporal_attn2\.", ".tAtt_1."),
    (r"\.feat_fusion\.", ".fea_fusion."),
    (r"\.spatial_attn_l(\d)\.", r".sAtt_L\1."),
    (r"\.spatial_attn_add(\d)\.", r".sAtt_add_\1."),
    (r"\.spatial_attn(\d)\.", r".sAtt_\1."),
    (r"^reconstruction\.", "recon_trunk."),
    (r"^conv_hr\.", "HRconv."),
    *FROM_AUTHORS,
)


def window_around(middle: int, *, length: int, size: int) -> list[int]:
    """The indices of a window's frames.

    Args:
        middle: the frame to enlarge, from 0.
        length: frames in the sequence.
        size: frames in the window, odd.

    Returns:
        `size` indices, with `middle` in the middle. Those before the sequence are replaced by those after the window
        and vice versa, nearest first; in a sequence shorter than `size` they are mirrored.
    """
    first, last, end = middle - size // 2, middle + size // 2, length - 1
    if length < size:
        positions = (index % max(2 * end, 1) for index in range(first, last + 1))
        return [min(position, 2 * end - position) for position in positions]
    return [
        last - index if index < 0 else first - (index - end) if index > end else index
        for index in range(first, last + 1)
    ]


class PreparedFrame(NamedTuple):
    """A frame's features and offset share, which are the same in every window."""

    pyramid: Pyramid
    in_offsets: Pyramid  # its contribution to the offsets at which it is sampled


class Cascade(nn.Module):
    """Samples the aligned features once more, at full resolution."""

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__()
        self.offset1, self.offset2 = conv3x3(2 * channels, channels), conv3x3(channels, channels)
        self.sample = DeformableSampling(channels=channels, deformable_groups=deformable_groups)

    def share_of_target(self, target: Tensor) -> Tensor:
        """The contribution to the offsets of the features `(b, c, h, w)` that others are sampled towards."""
        return conv_part(self.offset1, target, target.shape[1])

    def forward(self, aligned: Tensor, share_of_target: Tensor) -> Tensor:
        """`(b, c, h, w)` to the same shape."""
        offset = leaky_relu(conv_part(self.offset1, aligned, 0).add_(share_of_target))
        return leaky_relu(self.sample(aligned, leaky_relu(self.offset2(offset))))


class EDVR(FrameUpscaler):
    """EDVR for enlargement by 4; EDVR-L by default.

    Args:
        channels: width of the features at the input's size.
        hr_channels: width of the features at the output's size.
        frames: frames in a window, odd.
        deformable_groups: number of channel groups, each sampled at its own offsets.
        feature_blocks: residual blocks of the feature extraction.
        reconstruction_blocks: residual blocks after fusion.

    Raises:
        InvalidInput: `frames` is even or below 1, or `deformable_groups` does not divide `channels`.
    """

    title = "EDVR"
    weight_files = (
        WeightFile(
            name="EDVR_Vimeo90K_SR_L.pth",
            project="github.com/xinntao/EDVR",
            signature="tsa_fusion.tAtt_1.weight",
            renaming=FROM_AUTHORS,
        ),
        WeightFile(
            name="EDVR_L_x4_SR_Vimeo90K_official",
            project="github.com/XPixelGroup/BasicSR",
            signature="fusion.temporal_attn1.weight",
            renaming=FROM_BASICSR,
        ),
    )

    def __init__(
        self,
        *,
        channels: int = 128,
        hr_channels: int = 64,
        frames: int = 7,
        deformable_groups: int = 8,
        feature_blocks: int = 5,
        reconstruction_blocks: int = 40,
    ) -> None:
        super().__init__()
        if frames < 1 or frames % 2 == 0:
            raise InvalidInput(
                f"frames={frames}: a window has a frame in the middle; expected an odd number of 1 or more"
            )
        self.reach = frames // 2
        self.features = FeatureExtraction(channels=channels, residual_blocks_count=feature_blocks)
        self.pyramid = FeaturePyramid(channels)
        self.align = PCDAlignment(channels=channels, deformable_groups=deformable_groups)
        self.cascade = Cascade(channels=channels, deformable_groups=deformable_groups)
        self.fusion = TSAFusion(channels=channels, frames=frames)
        self.reconstruction = Reconstruction(
            channels=channels, residual_blocks_count=reconstruction_blocks, hr_channels=hr_channels
        )

    def forward(self, frames: Tensor) -> Tensor:
        """See `FrameUpscaler`."""
        t, _, h, w = frames.shape[1:]
        sources: dict[int, PreparedFrame] = {}
        enlarged = []
        padded = pad_to_multiple(frames, MULTIPLE)
        for middle in range(t):
            window = window_around(middle, length=t, size=2 * self.reach + 1)
            # Only this window's: a frame that has left the window does not return to a later one.
            sources = {index: sources.get(index) or self.prepare(padded[:, index]) for index in window}
            enlarged.append(self.enlarge_middle(padded[:, middle], [sources[index] for index in window]))
        return torch.stack(enlarged, dim=1)[..., : SCALE * h, : SCALE * w]

    def prepare(self, frame: Tensor) -> PreparedFrame:
        """Prepares a frame `(b, 3, h, w)` for any window; height and width are multiples of 4."""
        # Convolutions are fastest with channels-last memory.
        pyramid = self.pyramid(self.features(frame.contiguous(memory_format=torch.channels_last)))
        return PreparedFrame(pyramid, self.align.share_of_source(pyramid))

    def enlarge_middle(self, middle: Tensor, window: list[PreparedFrame]) -> Tensor:
        """The network as published: enlarges the middle frame `(b, 3, h, w)` of a window to `(b, 3, 4h, 4w)`."""
        target = window[len(window) // 2].pyramid
        pyramid_share, cascade_share = self.align.share_of_target(target), self.cascade.share_of_target(target.level1)
        aligned = [
            self.cascade(self.align(frame.pyramid, frame.in_offsets, pyramid_share), cascade_share) for frame in window
        ]
        enlarged: Tensor = self.reconstruction(self.fusion(aligned))
        return enlarged + F.interpolate(middle, scale_factor=SCALE, mode="bilinear", align_corners=False)
