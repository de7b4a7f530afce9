"""The command line of `stvsr-upscale`."""

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from stvsr.data.clip import SCALE
from stvsr.video.clock import RATE_DENOMINATOR, snapped
from stvsr.video.codecs import CODECS, CONTAINERS
from stvsr.video.upscaling import PRECISIONS, SCALES

LOWEST_RATE, HIGHEST_RATE = Fraction(1, 100), 1000
"""Frames per second; much more would not fit into the 32-bit fractions of encoders."""

LARGEST = 10**9
"""The largest number accepted: nobody means more, and floats and FFmpeg's times hold it."""

EPILOG = """\
After Ctrl-C or a kill, run the same command again to continue; with other options, add --overwrite to start over.

examples:
  stvsr-upscale in.mp4 out.mp4
  stvsr-upscale in.mp4 slow.mkv --slow-motion --codec h265 --checkpoint zsm.pth
  stvsr-upscale in.mp4 look.mp4 --preview --start 1:30 --duration 0.1
  stvsr-upscale frames/ out.mp4 --rate 24000/1001
  ffmpeg -i in.avi -f yuv4mpegpipe - | stvsr-upscale - - --method bicubic | ffmpeg -i - out.webm
"""


def parser() -> argparse.ArgumentParser:
    """Defines the command line."""
    cli = _Parser(
        prog="stvsr-upscale",
        description="Makes a video of twice the frame rate and four times the width and height.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("input", type=_path, help="a video file, a folder of numbered PNG frames, or - for Y4M")
    cli.add_argument(
        "output",
        type=_path,
        help=f"a file ({' '.join(CONTAINERS)} .y4m), a folder for PNG frames (a name without extension), or - for Y4M",
    )
    method = cli.add_argument_group("method (at most one)").add_mutually_exclusive_group()
    method.add_argument(
        "--checkpoint",
        type=Path,
        help="a checkpoint from stvsr.train, a .safetensors file from stvsr.export, or the authors' .pth "
        "(default: the starter weights)",
    )
    method.add_argument("--method", choices=["bicubic"], help="bicubic + blending: fast, needs no weights")

    frames = cli.add_argument_group("frame rate and size")
    rates = frames.add_mutually_exclusive_group()
    rates.add_argument(
        "--slow-motion", action="store_true", help="keep the rate and double the duration, without sound"
    )
    rates.add_argument("--no-interpolate", action="store_true", help="only enlarge; keep the rate")
    frames.add_argument("--rate", type=_rate, help="frames per second of a folder of PNG frames, such as 24000/1001")
    frames.add_argument(
        "--scale",
        type=int,
        choices=SCALES,
        default=SCALE,
        help="magnification; 2 downsamples the result of 4 (default: 4)",
    )
    frames.add_argument(
        "--preview", action="store_true", help="side by side: bicubic + blending left, the method right"
    )

    part = cli.add_argument_group("part of the input")
    part.add_argument(
        "--start", type=_time, default=Fraction(0), metavar="TIME", help="where to start: seconds, or 1:02:03.5"
    )
    part.add_argument("--duration", type=_time, metavar="TIME", help="process only this much of the input")

    file = cli.add_argument_group("output")
    file.add_argument(
        "--codec",
        choices=sorted(CODECS),
        help="default: h264, in .webm vp9 (or av1); prores goes into .mov and .mkv, ffv1 (lossless) into .mkv",
    )
    file.add_argument(
        "--crf", type=int, help="quality: lower is better, and a larger file (default: by codec, 18 for h264)"
    )
    file.add_argument("--pixel-format", help="FFmpeg's name, such as yuv444p (default: by codec, mostly yuv420p)")
    file.add_argument(
        "--overwrite", action="store_true", help="replace existing output, or unfinished work begun with other options"
    )

    machine = cli.add_argument_group("hardware")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: bf16 where it is fast and its first frames agree with float32 to 60 dB, else float32",
    )
    machine.add_argument(
        "--memory", type=_gibibytes, metavar="GIB", help="memory limit in GiB (default: most of what is free)"
    )
    return cli


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def _time(text: str) -> Fraction:
    """Seconds from `90`, `1:30` or `0:01:30.5`."""
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = 60 * seconds + _number(part, zero_allowed=True)
    return seconds


def _rate(text: str) -> Fraction:
    """Frames per second, `snapped`, as a fraction that encoders take."""
    rate = snapped(_number(text, zero_allowed=False)).limit_denominator(RATE_DENOMINATOR)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text} frames per second; expected {LOWEST_RATE} to {HIGHEST_RATE}")
    return rate


def _path(text: str) -> Path:
    if not text:  # to pathlib, the working folder
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def _gibibytes(text: str) -> float:
    return float(_number(text, zero_allowed=False))


def _number(text: str, *, zero_allowed: bool) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if value < 0 or (not zero_allowed and value == 0):
        raise argparse.ArgumentTypeError(f"{text} is {'negative' if zero_allowed else 'not positive'}")
    if value > LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is too large")
    return value
