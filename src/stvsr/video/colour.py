"""Converts decoded frames to RGB and back, so that the output's colours look like the input's.

A video stores Y, Cb and Cr; which RGB they mean depends on a matrix and a range, which the file states or leaves open.
Players then guess by frame size. For an enlarged frame they would guess differently, so a matrix that is left open is
chosen as players choose it for the input, and stated in the output.

Frames are converted to 8 bits (deeper ones are rounded); transfer and primaries are passed on unchanged.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import av.filter
import numpy as np
import torch
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from torch import Tensor

from stvsr.errors import InvalidInput

BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020_NCL, BT2020_CL = 1, 2, 4, 5, 6, 7, 9, 10
"""Numbers of colour matrices in ITU-T H.273, as files and FFmpeg use them."""

SWSCALE = {BT709: 1, FCC: 4, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020_NCL: 9, BT2020_CL: 9}
"""Their numbers in FFmpeg's converter."""

ALWAYS_FULL = ("gray", "ya", "yuvj")
"""Prefixes of pixel formats that FFmpeg's converter takes for full range, whatever it is told."""

HDR, WIDE_GAMUT = (16, 18), 9
"""Numbers in H.273 of the transfers PQ and HLG, and of the primaries of BT.2020."""

SD_WIDTH, SD_HEIGHT = 1024, 576
"""Largest frame for which players assume BT.601."""

# Accurate chroma interpolation and rounding cost little beside encoding.
QUALITY = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

STRETCHED = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
"""Grey levels in full range, indexed by those in studio range."""


@dataclass(frozen=True)
class Colour:
    """What colours the samples of a video mean, in H.273's numbers.

    Attributes:
        matrix: coefficients of Y, Cb and Cr.
        full_range: whether black and white are 0 and 255 instead of 16 and 235.
        primaries: passed on.
        transfer: passed on.
    """

    matrix: int = BT709
    full_range: bool = False
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Colour":
        """What a decoded frame describes; what it leaves open is chosen as players do.

        Raises:
            InvalidInput: a matrix that cannot be converted.
        """
        if frame.format.is_rgb or frame.format.name.startswith(("gray", "ya", "pal", "mono")):
            # Stored without a matrix; the output gets the usual one and studio range.
            usual = cls.for_size(frame.width, frame.height)
            return replace(usual, primaries=int(frame.color_primaries), transfer=int(frame.color_trc))
        matrix = int(frame.colorspace)
        if matrix == UNSPECIFIED:
            matrix = cls.for_size(frame.width, frame.height).matrix
        if matrix not in SWSCALE:
            raise InvalidInput(
                f"the video's colour matrix is number {matrix} of H.273; expected BT.601, BT.709 or BT.2020: "
                "convert it first, for example with ffmpeg -vf colorspace=all=bt709:iprimaries=bt709:itrc=bt709"
            )
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        return cls(matrix, full, int(frame.color_primaries), int(frame.color_trc))

    @classmethod
    def for_size(cls, width: int, height: int) -> "Colour":
        """What players assume for a video that says nothing."""
        return cls(matrix=SMPTE170M if width <= SD_WIDTH and height <= SD_HEIGHT else BT709)

    @property
    def range(self) -> ColorRange:
        """The range, in FFmpeg's terms."""
        return ColorRange.JPEG if self.full_range else ColorRange.MPEG


class ToRgb:
    """Converts decoded frames to tensors.

    Args:
        colour: of the frames.
    """

    def __init__(self, colour: Colour) -> None:
        self.colour = colour
        # One for all frames: it keeps its conversion tables.
        self.converter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Tensor:
        """`(3, h, w)`, uint8 RGB."""
        planar = frame
        if frame.format.is_rgb and frame.format.components[0].bits < 8:
            # Converted directly to planes, 5-bit samples would only be shifted left: white would be 248.
            frame = frame.reformat(format="rgb24")
        if frame.format.name != "gbrp":
            source_range = {} if frame.format.is_rgb else {"src_color_range": self.colour.range}
            planar = self.converter.reformat(
                frame,
                format="gbrp",
                src_colorspace=SWSCALE[self.colour.matrix],
                dst_color_range=ColorRange.JPEG,
                interpolation=QUALITY,
                **source_range,
            )
        green, blue, red = (
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
            for plane in planar.planes
        )
        rgb = np.stack([red, green, blue])
        if frame.color_range == ColorRange.MPEG and frame.format.name.startswith(("gray", "ya")):
            rgb = STRETCHED[rgb]
        return torch.from_numpy(rgb)


class FromRgb:
    """Converts tensors to frames for an encoder.

    Args:
        colour: of the frames.
        pixel_format: of the frames, by FFmpeg's name.
    """

    def __init__(self, colour: Colour, pixel_format: str) -> None:
        self.colour = colour
        self.pixel_format = pixel_format
        self.converter = VideoReformatter()
        self.planar: av.VideoFrame | None = None

    def __call__(self, rgb: Tensor) -> av.VideoFrame:
        """One frame `(3, h, w)`, uint8."""
        height, width = rgb.shape[1:]
        # Reused, unless it is itself returned: allocating one costs more than the conversion.
        planar = self.planar
        if planar is None or self.pixel_format == "gbrp":
            planar = av.VideoFrame(width, height, "gbrp")
            planar = self.planar = planar if self.pixel_format == "gbrp" else _with_chroma_left(planar)
            planar.color_range = ColorRange.JPEG
        for plane, values in zip(planar.planes, (rgb[1], rgb[2], rgb[0]), strict=True):
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height, :width] = values.numpy()
        if self.pixel_format == "gbrp":
            return planar
        frame = self.converter.reformat(
            planar,
            format=self.pixel_format,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=SWSCALE[self.colour.matrix],
            dst_color_range=self.colour.range,
            interpolation=QUALITY,
        )
        if not frame.format.is_rgb:
            frame.colorspace = self.colour.matrix
        # Some encoders look only here.
        frame.color_primaries, frame.color_trc = self.colour.primaries, self.colour.transfer
        return frame


def _with_chroma_left(frame: av.VideoFrame) -> av.VideoFrame:
    """Makes the converter place a frame's chroma where players expect it: on every other column, not between two.

    Between two is the converter's default. A filter sets the location, because PyAV cannot.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setparams", "chroma_location=left"), graph.add("buffersink")).configure()
    source.push(frame)
    placed = graph.pull()
    assert isinstance(placed, av.VideoFrame)
    return placed
