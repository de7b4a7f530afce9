"""What each kind of output can hold, and what of a video's pictures it loses."""

from collections.abc import Iterator
from pathlib import Path

from stvsr.errors import InvalidInput
from stvsr.video.clock import Clock
from stvsr.video.codecs import CONTAINERS, Encoding, keeps_shapes
from stvsr.video.colour import HDR, WIDE_GAMUT
from stvsr.video.picture import Picture
from stvsr.video.sources import STANDARD

NO_QUICKTIME = {"vp9": ("yuv440p",)}
"""Pixel formats, by codec, that MP4 cannot signal (VP Codec ISO Media File Format Binding): no program reads them."""


def can_turn(output: Path) -> bool:
    """Whether an output can tell players to rotate the frames."""
    container = CONTAINERS.get(output.suffix.lower())
    return container is not None and container.turns


def is_y4m(output: Path) -> bool:
    """Whether an output is raw video."""
    return output == STANDARD or output.suffix.lower() == ".y4m"


def check_form(output: Path, encoding: Encoding) -> None:
    """Refuses a pixel format that the output's container cannot signal to its readers.

    Raises:
        InvalidInput: it cannot; names the containers that can.
    """
    extension, pixel_format = output.suffix.lower(), encoding.pixel_format
    if CONTAINERS[extension].quicktime and pixel_format in NO_QUICKTIME.get(encoding.codec, ()):
        suitable = [name for name, kind in CONTAINERS.items() if encoding.codec in kind.codecs and not kind.quicktime]
        raise InvalidInput(
            f"--pixel-format {pixel_format}: {encoding.codec} with it is unreadable in {extension}; choose another, or "
            f"an output that ends in {' or '.join(suitable)}"
        )


def losses(lr: Picture, picture: Picture, clock: Clock, output: Path, encoding: Encoding | None) -> Iterator[str]:
    """What of the pictures is lost, or spoils them, in words for users.

    Args:
        lr: the input's.
        picture: the output's.
        clock: its times.
        output: a file, a folder for PNG frames, or standard output.
        encoding: how it is compressed; None where it is not.
    """
    if lr.interlaced:
        yield "the video is interlaced; deinterlace it first (ffmpeg -vf bwdif), or moving things will show comb lines"
    if lr.bits > 8:
        yield f"the video has {lr.bits} bits per sample; they are rounded to 8"
    if lr.not_kept:
        yield f"the video carries {', '.join(lr.not_kept)}, which will be dropped"
    if lr.transparent:
        yield "the video has an alpha channel; it is dropped"
    extension = output.suffix.lower()
    if lr.pixel_aspect != 1 and encoding is not None and not keeps_shapes(extension, encoding.codec):
        suitable = [name for name, kind in CONTAINERS.items() if kind.quicktime and encoding.codec in kind.codecs]
        yield (
            f"the video's pixels are not square; {extension} with {encoding.codec} will show them square: "
            f"choose {' or '.join(suitable) or '.mp4 and another codec'} to keep their shape"
        )
    if lr.pixel_aspect != 1 and encoding is None and not is_y4m(output):
        yield (
            f"the frames' pixels are {float(picture.pixel_aspect):.6g} times as wide as they are high, which PNG files "
            "do not record: tell the program that reads them (ffmpeg -vf setsar), or choose .mp4 to keep it"
        )
    if clock.times.pts is not None and encoding is None:
        kind = "Y4M has" if is_y4m(output) else "PNG frames have"
        loss = "at a constant rate some frames will be early or late"
        if not clock.times.varies:
            loss = "the last frame, which is held, will be shown no longer than the others"
        yield f"{kind} no frame times, so {loss}; choose .mp4 or .mkv to keep the times"
    if encoding is None and (lr.colour.transfer in HDR or lr.colour.primaries == WIDE_GAMUT):
        yield (
            f"{'Y4M does' if is_y4m(output) else 'PNG files do'} not record HDR or wide-gamut colours, which will "
            f"look pale: tell the program that reads them (ffmpeg -color_primaries {lr.colour.primaries} -color_trc "
            f"{lr.colour.transfer}), or choose .mp4 to keep them"
        )
