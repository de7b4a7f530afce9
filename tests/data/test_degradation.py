"""Our bicubic against a float64 port of MATLAB's imresize written here, and against itself on crops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stvsr.data import degradation
from stvsr.data.clip import to_float
from stvsr.data.degradation import bicubic, downsample, downsample_crop, downsample_stored, symmetric_pad
from stvsr.errors import InvalidInput


def keys_kernel(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def matlab_matrix(length: int, factor: float) -> np.ndarray:
    """The `(length * factor, length)` matrix by which MATLAB's imresize multiplies one dimension."""
    out = round(length * factor)
    stretch = min(factor, 1.0)
    centre = np.arange(1, out + 1) / factor + 0.5 * (1 - 1 / factor)
    first = np.floor(centre - 2 / stretch).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(4 / stretch)) + 2)
    weights = stretch * keys_kernel(stretch * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])[(taps - 1) % (2 * length)]
    matrix = np.zeros((out, length))
    for row in range(out):
        np.add.at(matrix[row], mirrored[row], weights[row])
    return matrix


def matlab_imresize(image: np.ndarray, factor: float) -> np.ndarray:
    rows, columns = (matlab_matrix(side, factor) for side in image.shape[-2:])
    return rows @ image @ columns.T


@pytest.mark.parametrize(
    ("h", "w", "scale"), [(256, 448, 4), (576, 720, 4), (96, 126, 3)], ids=["vimeo", "vid4", "a third"]
)
@pytest.mark.parametrize("content", ["noise", "binary", "smooth"])
def test_no_pixel_differs_from_matlab_after_rounding(h: int, w: int, content: str, scale: int) -> None:
    rng = np.random.default_rng(0)
    if content == "smooth":
        y, x = np.mgrid[:h, :w]
        levels = np.stack([127.5 + 127.5 * np.sin(x / a + y / b) for a, b in ((9, 31), (5, 7), (40, 3))]).round()
    else:
        levels = rng.integers(0, 256, (3, h, w)).astype(float)
        if content == "binary":
            levels = 255.0 * (levels > 127)
    expected = np.floor(np.clip(matlab_imresize(levels, 1 / scale), 0, 255) + 0.5)
    ours = downsample(torch.from_numpy(levels / 255).float()[None], scale=scale)[0] * 255
    different = int((np.abs(ours.numpy() - expected) > 1e-3).sum())
    assert different == 0, f"{different} of {expected.size} values differ"


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 4.0])
def test_bicubic_equals_matlab_in_both_directions(factor: float) -> None:
    image = np.random.default_rng(1).random((3, 24, 32))
    ours = bicubic(torch.from_numpy(image), factor=factor).numpy()
    assert np.abs(ours - matlab_imresize(image, factor)).max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bicubic_takes_reduced_precision(dtype: torch.dtype) -> None:
    """On a CPU, torch's own refuses it."""
    frames = torch.rand(3, 8, 12).to(dtype)
    assert torch.equal(bicubic(frames, factor=4), bicubic(frames.float(), factor=4).to(dtype))


def test_bicubic_keeps_leading_dimensions() -> None:
    frames = torch.rand(2, 3, 3, 8, 12, dtype=torch.float64)
    resized = bicubic(frames, factor=4)
    assert resized.shape == (2, 3, 3, 32, 48)
    torch.testing.assert_close(resized[1, 2], bicubic(frames[1, 2], factor=4))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), h=st.integers(1, 16), w=st.integers(1, 16), seed=st.integers(0, 9999))
def test_a_crop_has_the_lr_pixels_of_the_whole_frame(data: st.DataObject, h: int, w: int, seed: int) -> None:
    frames = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 3, 4 * h, 4 * w), dtype=np.uint8))
    rows, columns = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    top, left = data.draw(st.integers(0, h - rows)), data.draw(st.integers(0, w - columns))
    crop = downsample_crop(frames, top=4 * top, left=4 * left, height=4 * rows, width=4 * columns)
    whole = downsample(to_float(frames))
    assert torch.equal(crop, whole[..., top : top + rows, left : left + columns])
    assert torch.equal(downsample_stored(frames), whole)


@settings(max_examples=40, deadline=None)
@given(h=st.integers(1, 12), w=st.integers(1, 12), margin=st.integers(0, 40))
def test_symmetric_pad_is_numpys(h: int, w: int, margin: int) -> None:
    frames = torch.arange(h * w).view(1, h, w)
    expected = np.pad(frames.numpy(), ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    assert np.array_equal(symmetric_pad(frames, margin).numpy(), expected)


def test_result_is_on_the_8_bit_grid_and_in_range() -> None:
    lr = downsample((torch.rand(2, 7, 3, 32, 32) > 0.5).float())
    assert lr.shape == (2, 7, 3, 8, 8)
    assert lr.dtype == torch.float32
    assert ((lr * 255) - (lr * 255).round()).abs().max() < 1e-4
    assert lr.min() >= 0
    assert lr.max() <= 1


@pytest.mark.parametrize(("h", "w"), [(30, 32), (32, 33)])
def test_a_size_that_does_not_divide_is_refused(h: int, w: int) -> None:
    with pytest.raises(InvalidInput, match=f"{w}x{h}; expected sides that are multiples of 4"):
        downsample(torch.rand(3, h, w))


def test_stored_frames_are_not_taken_for_floating_point() -> None:
    with pytest.raises(InvalidInput, match=r"frames are torch\.uint8; expected floating point"):
        downsample(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(InvalidInput, match=r"frames are torch\.float32; expected uint8, as they are stored"):
        downsample_stored(torch.zeros(3, 8, 8))


@pytest.mark.parametrize("place", [{"top": 4, "left": 0}, {"top": 0, "left": 8}, {"top": -4, "left": 0}], ids=str)
def test_a_crop_that_leaves_the_frames_is_refused(place: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=r"a crop of 8x8 at \(.*\) leaves frames of 12x8; choose a smaller one"):
        downsample_crop(torch.zeros(3, 8, 12, dtype=torch.uint8), height=8, width=8, **place)


def test_grey_levels_are_not_taken_for_frames_between_0_and_1() -> None:
    for low, high in ((0, 255), (-1, 1), (0, 1.02)):
        with pytest.raises(InvalidInput, match=rf"frame values are {low} to {high}; expected \[0, 1\]: divide"):
            downsample(torch.tensor([low, high] * 96).view(3, 8, 8).float())


@pytest.mark.parametrize("length", [8, 144, 200])
def test_a_reduction_has_weights_that_doubles_hold_exactly(length: int) -> None:
    weights = degradation._reduction_matrix(length) * 2**12
    assert torch.equal(weights, weights.round())
    assert torch.equal(weights.sum(dim=1), torch.full((length // 4,), 2.0**12, dtype=torch.float64))


@pytest.mark.parametrize("seed", [9, 20, 22], ids="seed{}".format)
def test_pixels_next_to_a_tie_are_rounded_to_the_right_side(seed: int) -> None:
    """Compared with sums of whole numbers, rounded only once.

    Each of these seeds has a pixel that was rounded to the wrong side when grey levels came from values divided by 255
    in single precision.
    """
    stored = torch.from_numpy(np.random.default_rng(seed).integers(60, 190, (3, 512, 512)))
    weights = (degradation._reduction_matrix(512) * 2**12).long()
    exact = (weights @ stored @ weights.t() + 2**23) >> 24
    for made in (
        downsample(to_float(stored.to(torch.uint8))),
        downsample_crop(stored.to(torch.uint8), top=0, left=0, height=512, width=512),
    ):
        assert torch.equal((made * 255).round().long(), exact)


def test_matrices_of_all_sizes_that_were_met_do_not_fill_the_memory() -> None:
    """A folder of videos may hold many sizes. Matrices for a training run's crops stay cached."""
    for side in range(16, 116, 4):
        downsample_stored(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    assert degradation._reduction_matrix.cache_info().currsize <= 8
    computed = degradation._reduction_matrix.cache_info().misses
    for top in (0, 4, 8, 0, 4, 8):
        downsample_crop(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), top=top, left=0, height=32, width=32)
    assert degradation._reduction_matrix.cache_info().misses <= computed + 3
