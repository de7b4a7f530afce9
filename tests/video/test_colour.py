"""Colours are converted both ways as H.273 defines; players show output as they showed input."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

from stvsr.data.packets import video_stream
from stvsr.errors import InvalidInput
from stvsr.video.colour import (
    BT470BG,
    BT709,
    BT2020_CL,
    BT2020_NCL,
    FCC,
    SMPTE170M,
    SMPTE240M,
    UNSPECIFIED,
    Colour,
    FromRgb,
    ToRgb,
)

HEIGHT, WIDTH = 24, 40

KR_KB = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    SMPTE170M: (0.299, 0.114),
    BT470BG: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020_NCL: (0.2627, 0.0593),
}


def to_rgb(planes: np.ndarray, matrix: int, full: bool, bits: int = 8) -> np.ndarray:
    """H.273 in float64: `(3, H, W)` Y, Cb, Cr to R, G, B in 0 … 255, not rounded."""
    kr, kb = KR_KB[matrix]
    step = 2 ** (bits - 8)
    y, cb, cr = planes.astype(np.float64)
    if full:
        peak = 2**bits - 1
        y, cb, cr = y / peak, (cb - 128 * step) / peak, (cr - 128 * step) / peak
    else:
        y, cb, cr = (y / step - 16) / 219, (cb / step - 128) / 224, (cr / step - 128) / 224
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return 255 * np.clip(np.stack([red, green, blue]), 0, 1)


def frame_of(planes: np.ndarray, pixels: str) -> av.VideoFrame:
    frame = av.VideoFrame(planes.shape[2], planes.shape[1], pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(plane), values.dtype).reshape(plane.height, -1)
        rows[:, : values.shape[1]] = values
    return frame


@pytest.mark.parametrize("full", [False, True], ids=["studio", "full"])
@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("bits", [8, 10])
def test_stored_colours_are_understood(matrix: int, full: bool, bits: int) -> None:
    step = 2 ** (bits - 8)
    dtype = np.uint8 if bits == 8 else np.uint16
    planes = np.random.default_rng(0).integers(60 * step, 190 * step, (3, HEIGHT, WIDTH)).astype(dtype)
    frame = frame_of(planes, "yuv444p" if bits == 8 else "yuv444p10le")
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    colour = Colour.of(frame)
    assert (colour.matrix, colour.full_range) == (matrix, full)
    # Half a level of rounding, plus errors of fixed point; deeper samples are dithered by up to a level.
    assert np.abs(ToRgb(colour)(frame).numpy() - to_rgb(planes, matrix, full, bits)).max() < (0.6 if bits == 8 else 1.5)


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p"])
@pytest.mark.parametrize("full", [False, True], ids=["studio", "full"])
@pytest.mark.parametrize("matrix", KR_KB)
def test_there_and_back_a_smooth_picture_stays(matrix: int, full: bool, pixels: str) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = torch.from_numpy(np.stack([60 + 3 * x, 80 + 4 * y, 200 - 2 * x]).astype(np.uint8))
    colour = Colour(matrix, full, primaries=9, transfer=16)
    stored = FromRgb(colour, pixels)(rgb)
    assert (stored.colorspace, stored.color_range) == (matrix, 2 if full else 1)
    assert Colour.of(stored) == colour
    assert (ToRgb(colour)(stored).int() - rgb.int()).abs().max() <= (3 if pixels == "yuv444p" else 6)


@pytest.mark.parametrize("pixels", ["gbrp", "bgr0", "rgb24"])
def test_rgb_is_stored_exactly(pixels: str) -> None:
    frames = torch.randint(0, 256, (2, 3, HEIGHT, WIDTH - 3), dtype=torch.uint8)
    # Both are converted first: an encoder may still hold one when the next is made.
    for stored, rgb in zip(list(map(FromRgb(Colour(), pixels), frames)), frames, strict=True):
        assert torch.equal(ToRgb(Colour.of(stored))(stored), rgb)


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((640, 480), SMPTE170M),
        ((720, 576), SMPTE170M),
        ((1024, 576), SMPTE170M),
        ((1280, 720), BT709),
        ((480, 640), BT709),
        ((1920, 1080), BT709),
    ],
)
def test_a_matrix_left_open_is_the_one_that_players_assume(size: tuple[int, int], matrix: int) -> None:
    frame = av.VideoFrame(*size, "yuv420p")
    assert Colour.of(frame).matrix == matrix
    assert Colour.of(frame).full_range is False


def test_old_names_of_full_range_are_understood() -> None:
    frame = av.VideoFrame(64, 48, "yuvj420p")
    assert Colour.of(frame).full_range


@pytest.mark.parametrize("pixels", ["yuv420p", "bgr0", "gbrp", "gray"])
def test_primaries_and_transfer_are_passed_on(pixels: str) -> None:
    frame = av.VideoFrame(64, 48, pixels)
    frame.color_primaries, frame.color_trc, frame.colorspace = 9, 16, BT2020_NCL
    colour = Colour.of(frame)
    assert (colour.primaries, colour.transfer) == (9, 16)
    colour = Colour.of(av.VideoFrame(64, 48, pixels))
    assert (colour.primaries, colour.transfer) == (UNSPECIFIED, UNSPECIFIED)


def test_constant_luminance_is_read_as_ordinary_bt2020_and_keeps_its_number() -> None:
    frame = av.VideoFrame(64, 48, "yuv420p")
    frame.colorspace = BT2020_CL
    colour = Colour.of(frame)
    assert colour.matrix == BT2020_CL
    assert torch.equal(ToRgb(colour)(frame), ToRgb(Colour(BT2020_NCL))(frame))


def test_a_matrix_that_cannot_be_converted_is_refused() -> None:
    frame = av.VideoFrame(64, 48, "yuv420p")
    frame.colorspace = 8  # YCgCo
    with pytest.raises(InvalidInput, match="colour matrix is number 8"):
        Colour.of(frame)


@pytest.mark.parametrize("full", [False, True], ids=["studio", "full"])
@pytest.mark.parametrize("pixels", ["gray", "gray10le", "ya8"])
def test_grey_is_read_in_the_range_that_is_said(pixels: str, full: bool) -> None:
    levels = np.arange(16, 236, dtype=np.uint8)
    frame = av.VideoFrame(len(levels), 2, pixels)
    (plane,) = frame.planes
    rows = np.frombuffer(memoryview(plane), np.uint16 if pixels == "gray10le" else np.uint8).reshape(2, -1)
    if pixels == "ya8":
        rows = rows[:, ::2]
    rows[:, : len(levels)] = levels * np.uint16(4) if pixels == "gray10le" else levels
    frame.color_range = 2 if full else 1
    expected = levels.astype(float) if full else (levels - 16.0) * 255 / 219
    # Half a level of rounding; deeper samples are dithered.
    assert np.abs(ToRgb(Colour.of(frame))(frame).numpy() - expected).max() < (1.8 if pixels == "gray10le" else 0.6)


@pytest.mark.parametrize("pixels", ["gray", "gray10le", "pal8", "yuva420p", "ya8", "nv12", "uyvy422"])
def test_other_kinds_of_pixels_are_taken(pixels: str) -> None:
    frame = av.VideoFrame(64, 48, pixels)
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = 128
    assert ToRgb(Colour.of(frame))(frame).shape == (3, 48, 64)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p"])
def test_chroma_lies_where_players_take_it_to_be(pixels: str) -> None:
    """On every other column, not between two; in the output, and in an input that does not specify it."""
    colour, columns = Colour(SMPTE170M), np.arange(128)
    red = np.broadcast_to((60 + columns).astype(np.uint8), (64, 128))
    rgb = np.stack([red, np.full_like(red, 100), np.full_like(red, 100)])
    stored = FromRgb(colour, pixels)(torch.from_numpy(rgb))
    plane = stored.planes[2]
    chroma = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[16, :64].astype(float)
    # With green and blue at 100, Cr is 128 + 112 / 255 (R - 100).
    at = (chroma - 128) * 255 / 112 + 100 - 60
    assert abs(np.mean((at - columns[::2])[8:56])) < 0.25

    with av.open(buffer := io.BytesIO(), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 64, pixels
        stored.pts = 0
        container.mux([*stream.encode(stored), *stream.encode()])
    buffer.seek(0)
    with av.open(buffer) as container:
        (frame,) = container.decode(video_stream(container, Path("a.mkv")))
        back = ToRgb(colour)(frame).numpy()
    assert abs((back[0] - rgb[0].astype(float))[:, 8:-8].mean()) < 0.25


def test_white_of_five_bits_is_white() -> None:
    frame = av.VideoFrame(16, 16, "rgb555le")
    np.frombuffer(memoryview(frame.planes[0]), np.uint8)[:] = np.tile([0xFF, 0x7F], frame.planes[0].buffer_size // 2)
    assert ToRgb(Colour.of(frame))(frame).min() == 255


@pytest.mark.parametrize("pixels", ["ya8", "gray", "pal8", "monow", "rgb24", "gbrp"])
def test_what_is_stored_without_a_matrix_gets_the_usual_one(pixels: str) -> None:
    """Frames may declare RGB (matrix 0), as in PNG files."""
    frame = av.VideoFrame(16, 16, pixels)
    frame.colorspace = 0
    assert Colour.of(frame).matrix == SMPTE170M
