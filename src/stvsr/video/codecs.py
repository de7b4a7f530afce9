"""What a video can be written as: codecs by name, containers by file name extension."""

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
from av.codec import Codec as LibraryCodec
from av.codec import CodecContext
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext

from stvsr.errors import InvalidInput
from stvsr.video.colour import ALWAYS_FULL, Colour

BIG_FRAME = 3840 * 2160
"""Pixels above which encoders get a shorter look-ahead."""


@dataclass(frozen=True)
class Codec:
    """A way to compress frames.

    Attributes:
        encoder: FFmpeg's name.
        pixel_format: the default.
        crf: the default constant quality, lower is better; None if it has none.
        options: its other options.
        frame_bytes: memory per pixel of a frame, for all frames queued in the encoder. Measured as resident memory of a
            process, from 480x272 to 1920x1080, with as many threads as it uses on any machine.
        big: options that override `options` above `BIG_FRAME`: a shorter look-ahead.
        big_frame_bytes: `frame_bytes` with `big`; None for the same.
        tag: of the codec in MP4 and MOV, where players insist on one.
        full_range: whether it can signal full range: black and white are 0 and 255.
        shapes: whether its bit stream stores the pixel aspect ratio.
        best_crf: the smallest `crf` it takes.
        worst_crf: the largest.
        smallest: the least width and height in pixels; with less its encoder fails, or never ends.
        largest: width and height of the largest frames that its encoder takes.
        highest_rate: the most frames per second that it takes.
    """

    encoder: str
    pixel_format: str
    crf: int | None
    options: dict[str, str]
    frame_bytes: int
    big: dict[str, str] = field(default_factory=dict)
    big_frame_bytes: int | None = None
    tag: str | None = None
    full_range: bool = True
    shapes: bool = False
    best_crf: int = 0
    worst_crf: int = 51
    smallest: int = 2
    largest: tuple[int, int] = (65535, 65535)
    highest_rate: float = math.inf


CODECS = {
    "h264": Codec(
        "libx264",
        "yuv420p",
        18,
        {"preset": "medium"},
        frame_bytes=220,
        big={"rc-lookahead": "8"},
        big_frame_bytes=80,
        shapes=True,
        largest=(16384, 16384),
    ),
    "h265": Codec(
        "libx265",
        "yuv420p",
        20,
        {"preset": "medium", "x265-params": "log-level=error:frame-threads=3"},
        frame_bytes=290,
        big={"x265-params": "log-level=error:frame-threads=3:rc-lookahead=10"},
        big_frame_bytes=240,
        smallest=64,
        tag="hvc1",
        shapes=True,
    ),
    # SVT-AV1 takes a crf of 0 as unset, and uses its default of 35.
    "av1": Codec(
        "libsvtav1",
        "yuv420p",
        26,
        {"preset": "8", "svtav1-params": "lp=4"},
        frame_bytes=420,
        big={"svtav1-params": "lp=4:lookahead=8:hierarchical-levels=3"},
        big_frame_bytes=270,
        smallest=32,
        best_crf=1,
        worst_crf=63,
        largest=(16384, 8704),
        highest_rate=240,
    ),
    "vp9": Codec(
        "libvpx-vp9",
        "yuv420p",
        24,
        {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        frame_bytes=310,
        worst_crf=63,
    ),
    "prores": Codec(
        "prores_ks", "yuv422p10le", None, {"profile": "hq", "vendor": "apl0"}, frame_bytes=20, full_range=False
    ),
    # Lossless: the finished 8-bit RGB frames, bit for bit.
    "ffv1": Codec("ffv1", "bgr0", None, {"level": "3", "slicecrc": "1"}, frame_bytes=90),
}


@dataclass(frozen=True)
class Container:
    """A container format.

    Attributes:
        form: FFmpeg's name of it.
        codecs: those of `CODECS` that go into it, its default first.
        quicktime: whether it is QuickTime or derived from it (MP4). Only these can be made to store the pixel aspect
            ratio (PyAV cannot for Matroska), and hold sound from before their start that is not played.
        turns: whether it can tell players to rotate the frames.
    """

    form: str
    codecs: tuple[str, ...]
    quicktime: bool = False
    turns: bool = True


CONTAINERS = {
    ".mp4": Container("mp4", ("h264", "h265", "av1", "vp9"), quicktime=True),
    ".m4v": Container("mp4", ("h264", "h265"), quicktime=True),
    ".mov": Container("mov", ("h264", "h265", "prores"), quicktime=True),
    ".mkv": Container("matroska", ("h264", "h265", "av1", "vp9", "prores", "ffv1")),
    ".webm": Container("webm", ("vp9", "av1"), turns=False),
}
"""By file name extension."""


def chosen_codec(output: Path, name: str | None) -> str:
    """The codec for an output file, by its extension unless one is named.

    Raises:
        InvalidInput: an unknown extension, or a codec that does not go into its container.
    """
    extension = output.suffix.lower()
    if extension not in CONTAINERS:
        raise InvalidInput(
            f"{output}: unknown extension {extension!r}; expected {', '.join(CONTAINERS)}, .y4m, "
            "or a name without extension for a folder of PNG frames"
        )
    supported = CONTAINERS[extension].codecs
    codec = name or supported[0]
    if codec not in supported:
        others = [other for other, container in CONTAINERS.items() if codec in container.codecs]
        raise InvalidInput(
            f"--codec {codec} is not supported in {extension}; expected {', '.join(supported)}, "
            f"or an output that ends in {', '.join(others)}"
        )
    return codec


@dataclass(frozen=True)
class Encoding:
    """A codec with the user's settings.

    Attributes:
        codec: one of `CODECS`.
        crf: constant quality; None means the codec's default.
        chosen_pixel_format: FFmpeg's name; None means the codec's default.
    """

    codec: str
    crf: int | None = None
    chosen_pixel_format: str | None = None

    def check(self) -> None:
        """Refuses settings that the encoder does not take.

        Raises:
            InvalidInput: a `crf` out of range or not supported, a pixel format it does not write, or a missing encoder.
        """
        chosen = CODECS[self.codec]
        if self.crf is not None and chosen.crf is None:
            raise InvalidInput(f"--crf {self.crf}: {self.codec} has no such setting; omit it")
        best, worst = chosen.best_crf, chosen.worst_crf
        if self.crf is not None and not best <= self.crf <= worst:
            raise InvalidInput(f"--crf {self.crf}; expected {best} (best) to {worst} with {self.codec}")
        try:
            formats = [form.name for form in LibraryCodec(chosen.encoder, "w").video_formats or []]
        except UnknownCodecError:
            raise InvalidInput(
                f"--codec {self.codec}: PyAV was built without {chosen.encoder}; install PyAV's wheel, or choose "
                "another codec"
            ) from None
        # Encoders list formats that they refuse, or FFmpeg cannot convert to.
        chosen_format = self.chosen_pixel_format
        if chosen_format is not None and not (chosen_format in formats and self._can_encode(chosen_format)):
            raise InvalidInput(
                f"--pixel-format {chosen_format}: {self.codec} does not support it; "
                f"expected one of {', '.join(filter(self._can_encode, formats))}"
            )

    def _can_encode(self, pixel_format: str) -> bool:
        """Whether a small frame can be encoded so."""
        encoder = CodecContext.create(CODECS[self.codec].encoder, "w")
        assert isinstance(encoder, VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 64, pixel_format, Fraction(1, 25)
        encoder.options = self.options(pixels_per_frame=0)
        try:
            # Flushed too, or the AV1 encoder complains.
            list(map(encoder.encode, (av.VideoFrame(64, 64, "gbrp").reformat(format=pixel_format), None)))
        except (av.FFmpegError, ValueError):
            return False
        return True

    def check_size(self, extension: str, width: int, height: int) -> None:
        """Refuses frames that are too large for the encoder, or too small.

        Args:
            extension: of the output; other codecs for it are suggested.
            width: of the frames.
            height: of the frames.

        Raises:
            InvalidInput: they are; says what would take them.
        """
        if not _supports_size(self.codec, width, height):
            others = [codec for codec in CONTAINERS[extension].codecs if _supports_size(codec, width, height)]
            chosen = CODECS[self.codec]
            bound, scale = "supports at most {}x{}".format(*chosen.largest), "a smaller --scale, "
            if min(width, height) < chosen.smallest:
                bound, scale = f"needs at least {chosen.smallest} pixels a side", ""
            raise InvalidInput(
                f"frames of {width}x{height}; {self.codec} {bound}: choose "
                f"{''.join(f'--codec {codec}, ' for codec in others)}{scale}or a folder of PNG frames"
            )

    def check_rate(self, extension: str, rate: Fraction) -> None:
        """Refuses more frames per second than the encoder takes, or than the container can tell apart.

        Raises:
            InvalidInput: says what to choose instead.
        """
        highest = CODECS[self.codec].highest_rate
        if rate > 1000 and not CONTAINERS[extension].quicktime:
            raise InvalidInput(
                f"{float(rate):g} frames per second; {extension} stores whole milliseconds: choose .mp4 or .mov, "
                "--slow-motion, or a folder of PNG frames"
            )
        if rate > highest:
            raise InvalidInput(
                f"{float(rate):g} frames per second; {self.codec} supports at most {highest:g}: choose another "
                "--codec, --slow-motion, or a folder of PNG frames"
            )

    @property
    def pixel_format(self) -> str:
        """The chosen pixel format, or the codec's default."""
        return self.chosen_pixel_format or CODECS[self.codec].pixel_format

    def stored(self, colour: Colour) -> Colour:
        """The colour description frames are stored with: `colour`, in a range that can be signalled."""
        full = colour.full_range and CODECS[self.codec].full_range
        return replace(colour, full_range=full or self.pixel_format.startswith(ALWAYS_FULL))

    def frame_bytes(self, pixels_per_frame: int) -> int:
        """Bytes that the encoder takes per pixel of a frame, for all frames queued in it."""
        chosen = CODECS[self.codec]
        return (chosen.big_frame_bytes if pixels_per_frame > BIG_FRAME else None) or chosen.frame_bytes

    def options(self, pixels_per_frame: int) -> dict[str, str]:
        """The encoder's options.

        Args:
            pixels_per_frame: frames above `BIG_FRAME` get a shorter look-ahead.
        """
        chosen = CODECS[self.codec]
        options = dict(chosen.options)
        if chosen.crf is not None:
            options["crf"] = str(chosen.crf if self.crf is None else self.crf)
        if pixels_per_frame > BIG_FRAME:
            options |= chosen.big
        return options


def _supports_size(codec: str, width: int, height: int) -> bool:
    (widest, highest), smallest = CODECS[codec].largest, CODECS[codec].smallest
    return smallest <= width <= widest and smallest <= height <= highest


def keeps_shapes(extension: str, codec: str) -> bool:
    """Whether the files written here tell players if pixels are not square."""
    return CONTAINERS[extension].quicktime or CODECS[codec].shapes
