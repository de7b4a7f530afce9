"""The options of `stvsr-upscale`, in words for people."""

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.video.codecs import CODECS, CONTAINERS

METHODS = {"bicubic": BicubicBlend}
"""Methods that need no checkpoint."""

PRECISIONS = ("auto", "float32", "bf16")


EXAMPLES = """\
examples:
  stvsr-upscale in.mp4 out.mp4
  stvsr-upscale in.mp4 slow.mkv --slow-motion --codec h265 --checkpoint zsm.pth
  stvsr-upscale in.mp4 look.mp4 --preview --start 1:30 --duration 2
  stvsr-upscale frames/ out.mp4 --rate 24000/1001
  ffmpeg -i in.avi -f yuv4mpegpipe - | stvsr-upscale - - --method bicubic | ffmpeg -i - out.webm
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog="stvsr-upscale",
        description="Video in, video of twice the frame rate and four times the width and height out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("input", type=Path, help="a video file, a folder of numbered PNG frames, or - for Y4M")
    made.add_argument(
        "output",
        type=Path,
        help=f"a file ({' '.join(CONTAINERS)} .y4m), a folder for PNG frames (a name without extension), or - for Y4M",
    )
    what = made.add_argument_group("what makes the frames (one of them, or neither)")
    what.add_argument(
        "--checkpoint",
        type=Path,
        help="trained weights: a file of stvsr.train, or the authors' .pth (default: starter, our own)",
    )
    what.add_argument("--method", choices=sorted(METHODS), help="a method that needs no weights")

    frames = made.add_argument_group("which frames")
    frames.add_argument(
        "--slow-motion", action="store_true", help="keep the rate and double the duration, without sound"
    )
    frames.add_argument("--no-interpolate", action="store_true", help="only enlarge; keep the rate")
    frames.add_argument("--scale", type=int, default=4, help="4, or 2: downsampled afterwards (default: 4)")
    frames.add_argument("--start", type=_time, default=Fraction(0), metavar="TIME", help="seconds, or 1:02:03.5")
    frames.add_argument("--duration", type=_time, metavar="TIME", help="only so much of the input")
    frames.add_argument("--rate", type=_rate, help="frames per second of a folder of PNG frames, such as 24000/1001")
    frames.add_argument(
        "--preview", action="store_true", help="bicubic + blending at the left, the method at the right"
    )

    file = made.add_argument_group("how they are written")
    file.add_argument("--codec", choices=sorted(CODECS), help="default: h264, in .webm vp9; ffv1 is lossless")
    file.add_argument("--crf", type=int, help="quality; smaller is better and larger (default: by codec, h264 18)")
    file.add_argument("--pixel-format", help="FFmpeg's name, such as yuv444p (default: by codec, mostly yuv420p)")
    file.add_argument("--overwrite", action="store_true", help="replace an output that is there, and unfinished work")

    machine = made.add_argument_group("where it runs")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    machine.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="auto: bf16 where it is fast and within 0.01 dB"
    )
    machine.add_argument("--memory", type=_gibibytes, metavar="GIB", help="most to use (default: most of what is free)")
    return made


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def _time(text: str) -> Fraction:
    """`90`, `1:30` or `0:01:30.5` in seconds."""
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = 60 * seconds + _positive(part, zero=True)
    return seconds


def _rate(text: str) -> Fraction:
    return _positive(text, zero=False)


def _gibibytes(text: str) -> float:
    try:
        return float(_positive(text, zero=False))
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text} is too large") from None


def _positive(text: str, *, zero: bool) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if value < 0 or (not zero and value == 0):
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value
