"""What is known of a video's pictures before the first of them is converted."""

from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.stream import VideoStream

from stvsr.data.clip import PEAK
from stvsr.data.orientation import Orientation, display_matrix, side_data
from stvsr.video.colour import Colour

NOT_KEPT = {
    "MASTERING_DISPLAY_METADATA": "HDR brightness",
    "CONTENT_LIGHT_LEVEL": "HDR brightness",
    "DYNAMIC_HDR_PLUS": "HDR brightness",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "A53_CC": "closed captions",
    "SPHERICAL": "a 360-degree flag",
    "STEREO3D": "a stereoscopic flag",
}
"""Side data that output frames lose: PyAV's names, and words for users."""


@dataclass(frozen=True)
class Picture:
    """What all frames of a source have in common.

    Attributes:
        width: in pixels.
        height: in pixels.
        colour: of the stored frames.
        pixel_aspect: width of a pixel divided by its height.
        display_matrix: how a player rotates the frames, as FFmpeg stores it (nine numbers); None if it does not.
        interlaced: whether the frames are made of two fields.
        bits: per stored sample.
        transparent: whether an alpha channel is stored.
        not_kept: side data of the first frame that is lost, in words for users.
    """

    width: int
    height: int
    colour: Colour
    pixel_aspect: Fraction = Fraction(1)
    display_matrix: tuple[int, ...] | None = None
    interlaced: bool = False
    bits: int = 8
    transparent: bool = False
    not_kept: tuple[str, ...] = ()

    @classmethod
    def of(cls, frame: av.VideoFrame, stream: VideoStream) -> "Picture":
        """What a decoded frame and its stream tell."""
        carried = side_data(frame)
        return cls(
            width=frame.width,
            height=frame.height,
            colour=Colour.of(frame),
            pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
            display_matrix=display_matrix(frame),
            interlaced=bool(frame.interlaced_frame),
            bits=max(component.bits for component in frame.format.components),
            # VP8 and VP9 store alpha beside the frames, where their decoders do not look. FFmpeg gives every GIF alpha:
            # the first frame tells.
            transparent=(
                any(component.is_alpha for component in frame.format.components)
                and (stream.codec_context.name != "gif" or bool((frame.to_ndarray(format="rgba")[..., 3] < PEAK).any()))
            )
            or any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items()),
            # Several names share words.
            not_kept=tuple(dict.fromkeys(words for name, words in NOT_KEPT.items() if name in carried)),
        )

    @property
    def orientation(self) -> Orientation:
        """How a player rotates and mirrors the frames, to the nearest quarter turn."""
        return Orientation.of(self.display_matrix)
