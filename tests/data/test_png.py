"""PNG frames: exact there and back; what is not 8-bit RGB is refused, never misread."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from stvsr.data.png import encode_png, png_size, read_png, write_png
from stvsr.errors import DamagedClip


def test_a_frame_comes_back_as_it_was_written_channel_by_channel(tmp_path: Path) -> None:
    frame = torch.randint(0, 256, (3, 11, 17), dtype=torch.uint8)
    frame[0], frame[2] = 255, 0  # red, so that a flipped order shows
    write_png(tmp_path / "a.png", frame)
    assert torch.equal(read_png(tmp_path / "a.png"), frame)
    assert png_size(tmp_path / "a.png") == (17, 11)
    assert cv2.imread(str(tmp_path / "a.png"))[0, 0].tolist() == [0, int(frame[1, 0, 0]), 255]
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_files_are_compressed() -> None:
    assert len(encode_png(torch.zeros(3, 64, 64, dtype=torch.uint8))) < 64 * 64


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "grey": (lambda path: Image.new("L", (8, 8)).save(path), "8-bit grey"),
    "palette": (lambda path: Image.new("P", (8, 8)).save(path), "with a palette"),
    "transparent": (lambda path: Image.new("RGBA", (8, 8)).save(path), "8-bit RGB with transparency"),
    "grey-16": (lambda path: cv2.imwrite(str(path), np.full((8, 8), 40000, np.uint16)), "16-bit grey"),
    "rgb-16": (lambda path: cv2.imwrite(str(path), np.full((8, 8, 3), 40000, np.uint16)), "16-bit RGB"),
    "jpeg": (lambda path: Image.new("RGB", (8, 8)).save(path, format="jpeg"), "not a PNG"),
    "empty": (lambda path: path.write_bytes(b""), "not a PNG"),
    "cut-off-header": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "not a PNG"),
}


@pytest.mark.parametrize(("make", "says"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("function", [read_png, png_size])
def test_what_is_not_8_bit_rgb_is_refused(
    tmp_path: Path, make: Callable[[Path], object], says: str, function: Callable[[Path], object]
) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(DamagedClip, match=rf"a\.png.*{says}"):
        function(tmp_path / "a.png")


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedClip, match=r"gone\.png: no such file"):
        read_png(tmp_path / "gone.png")
