"""Frames as 8-bit RGB PNG files: read, checked and written. Anything else is refused, never misread."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stvsr.errors import DamagedClip
from stvsr.files import beside_then_rename

SIGNATURE = b"\x89PNG\r\n\x1a\n"

HEADER = struct.Struct(">16xIIBB")
"""Width, height, bit depth and colour type, after the signature and the name of the first chunk."""

EIGHT_BIT, RGB = 8, 2

COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "with a palette", 4: "grey with transparency", 6: "RGB with transparency"}


def read_png(path: Path) -> Tensor:
    """One 8-bit RGB frame: `(3, H, W)`, uint8.

    Raises:
        DamagedClip: missing, truncated, or not an 8-bit RGB image.
    """
    content = _read_bytes(path)
    _checked_size(path, content)
    try:
        pixels = np.array(Image.open(BytesIO(content)))
    except Exception:
        # Pillow raises a dozen kinds of errors on damaged files.
        raise DamagedClip(f"{path}: not a readable PNG; the file is damaged: replace it") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def png_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone.

    Raises:
        DamagedClip: missing, or not an 8-bit RGB PNG.
    """
    return _checked_size(path, _read_bytes(path, HEADER.size))


def write_png(path: Path, frame: Tensor) -> None:
    """Writes a frame `(3, H, W)`, uint8; the file appears only when whole."""
    with beside_then_rename(path) as beside:
        beside.write_bytes(encode_png(frame))


def encode_png(frame: Tensor) -> bytes:
    """A frame `(3, H, W)`, uint8, as the content of a PNG file."""
    content = BytesIO()
    # Compression level 1: a third of the time for a few per cent of the size.
    pixels = frame.permute(1, 2, 0).cpu().contiguous().numpy()
    Image.fromarray(pixels).save(content, format="png", compress_level=1)
    return content.getvalue()


def _read_bytes(path: Path, count: int = -1) -> bytes:
    if not path.is_file():
        raise DamagedClip(f"{path}: no such file; expected a frame of the clip: restore it")
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise DamagedClip(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None


def _checked_size(path: Path, content: bytes) -> tuple[int, int]:
    if not content.startswith(SIGNATURE) or len(content) < HEADER.size:
        raise DamagedClip(f"{path}: not a PNG; expected a frame of the clip as 8-bit RGB PNG: replace the file")
    # Pillow would silently cut 16 bits to 8, so the header is checked.
    width, height, depth, colour = HEADER.unpack_from(content)
    if (depth, colour) != (EIGHT_BIT, RGB):
        kind = f"{depth}-bit {COLOUR_TYPES.get(colour, 'of unknown colour type')}"
        raise DamagedClip(f"{path}: the PNG is {kind}; expected 8-bit RGB: convert the file")
    return width, height
