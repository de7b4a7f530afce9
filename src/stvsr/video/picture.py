"""What is known of a video's pictures before the first of them is converted."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.buffer import Buffer
from av.video.stream import VideoStream

from stvsr.video.colour import Colour


@dataclass(frozen=True)
class Picture:
    """What all frames of a source have in common.

    Attributes:
        width: in pixels.
        height: in pixels.
        colour: of the stored frames.
        pixel_aspect: width of a pixel divided by its height.
        display_matrix: how a player turns the frames, as FFmpeg stores it (nine numbers); None where it does not.
        turns: counter-clockwise quarter turns of the same.
        interlaced: whether the frames are made of two fields.
        bits: of a stored sample.
        transparent: whether an alpha channel is stored.
    """

    width: int
    height: int
    colour: Colour
    pixel_aspect: Fraction = Fraction(1)
    display_matrix: tuple[int, ...] | None = None
    turns: int = 0
    interlaced: bool = False
    bits: int = 8
    transparent: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame, stream: VideoStream) -> "Picture":
        """What a decoded frame and its stream tell."""
        side_data: Mapping[str, Buffer] = frame.side_data  # type: ignore[assignment]
        stored = side_data.get("DISPLAYMATRIX")
        matrix = None if stored is None else tuple(np.frombuffer(bytes(stored), np.int32).tolist())
        return cls(
            width=frame.width,
            height=frame.height,
            colour=Colour.of(frame),
            pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
            display_matrix=matrix,
            turns=frame.rotation // 90 % 4,
            interlaced=bool(frame.interlaced_frame),
            bits=max(component.bits for component in frame.format.components),
            # VP8 and VP9 keep it beside the frames, where their decoders do not look.
            transparent=any(component.is_alpha for component in frame.format.components)
            or any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items()),
        )
