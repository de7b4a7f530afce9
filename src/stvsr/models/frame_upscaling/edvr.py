"""EDVR: every frame from seven around it, aligned in feature space and fused by attention (Wang et al., CVPRW 2019).

Its alignment is where Zooming Slow-Mo's comes from: the same pyramid and sampling, followed here by one sampling more
at full resolution, the cascade. Features of the window's frames, the middle one's own included, are sampled towards
the middle, fused (`tsa_fusion.py`) and reconstructed; the enlarged middle frame is added.

Windows at the ends of a sequence take the frames that are missing on one side from beyond the other, as the authors
do at the ends of Vid4's clips. In a sequence shorter than a window, where that would leave it, they are mirrored at
the ends instead.

Each frame's features are computed once. Without gradients only those of one window are kept, whatever the sequence's
length: with the default sizes about 30 kB for each LR pixel at the worst moment. With gradients memory grows with the
number of windows, one for each frame.
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
    # What Zooming Slow-Mo has too its authors call by the same names.
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
    # First to the authors' names.
    (r"^conv_l(\d)_(\d)\.", r"fea_L\1_conv\2."),
    (r"\.offset_conv(\d)\.l(\d)\.", r".L\2_offset_conv\1."),
    (r"\.dcn_pack\.l(\d)\.", r".L\1_dcnpack."),
    (r"\.conv_offset\.", ".conv_offset_mask."),
    (r"\.feat_conv\.l(\d)\.", r".L\1_fea_conv."),
    (r"^fusion\.", "tsa_fusion."),
    # The two are exchanged: here the first embeds the middle frame.
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
    """The frames of a window.

    Args:
        middle: the frame that is wanted, from 0.
        length: frames of the sequence.
        size: frames of the window, odd.

    Returns:
        `size` frames of the sequence, `middle` in the middle. What lies before the sequence is taken from behind the
        window and the other way round, the nearest first; in a sequence shorter than `size` it is mirrored.
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
    """A frame as windows take it: what does not depend on the window."""

    pyramid: Pyramid
    in_offsets: Pyramid  # what it contributes to the offsets at which it is sampled


class Cascade(nn.Module):
    """Samples once more, at full resolution, what the pyramid has aligned."""

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__()
        self.offset1, self.offset2 = conv3x3(2 * channels, channels), conv3x3(channels, channels)
        self.sample = DeformableSampling(channels=channels, deformable_groups=deformable_groups)

    def share_of_target(self, target: Tensor) -> Tensor:
        """What the features `(b, c, h, w)` that others are sampled towards contribute to the offsets."""
        return conv_part(self.offset1, target, target.shape[1])

    def forward(self, aligned: Tensor, share_of_target: Tensor) -> Tensor:
        """`(b, c, h, w)` to the same shape."""
        offset = leaky_relu(conv_part(self.offset1, aligned, 0).add_(share_of_target))
        return leaky_relu(self.sample(aligned, leaky_relu(self.offset2(offset))))


class EDVR(FrameUpscaler):
    """The network of four times enlargement, EDVR-L by default.

    Args:
        channels: width of the features of the input's size.
        hr_channels: width of those of the output's size.
        frames: of a window, odd.
        deformable_groups: groups of channels that are sampled at offsets of their own.
        feature_blocks: residual blocks that each frame passes alone.
        reconstruction_blocks: residual blocks after fusion.

    Raises:
        InvalidInput: `frames` is even, or `deformable_groups` does not divide `channels`.
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
        if frames % 2 == 0:
            raise InvalidInput(f"frames={frames}: a window has a frame in the middle; expected an odd number")
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
            # The frames of all windows with a frame lie together in time: one that has left is not needed again.
            sources = {index: sources.get(index) or self.prepare(padded[:, index]) for index in window}
            enlarged.append(self.enlarge_middle(padded[:, middle], [sources[index] for index in window]))
        return torch.stack(enlarged, dim=1)[..., : SCALE * h, : SCALE * w]

    def prepare(self, frame: Tensor) -> PreparedFrame:
        """What a frame `(b, 3, h, w)` contributes to any window; height and width are multiples of 4."""
        # Channels last is what convolutions are fastest with.
        pyramid = self.pyramid(self.features(frame.contiguous(memory_format=torch.channels_last)))
        return PreparedFrame(pyramid, self.align.share_of_source(pyramid))

    def enlarge_middle(self, middle: Tensor, window: list[PreparedFrame]) -> Tensor:
        """The network as published: the frame `(b, 3, h, w)` in the middle of a window to `(b, 3, 4h, 4w)`."""
        target = window[len(window) // 2].pyramid
        for_pyramid, for_cascade = self.align.share_of_target(target), self.cascade.share_of_target(target.level1)
        aligned = [
            self.cascade(self.align(frame.pyramid, frame.in_offsets, for_pyramid), for_cascade) for frame in window
        ]
        enlarged: Tensor = self.reconstruction(self.fusion(aligned))
        return enlarged + F.interpolate(middle, scale_factor=SCALE, mode="bilinear", align_corners=False)
