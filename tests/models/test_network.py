"""Reflection pads frames of any size to multiples of what a network needs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stvsr.errors import InvalidInput
from stvsr.models.network import InputRequirements, pad_to_multiple


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 4, 8, 32]))
def test_padding_reflects_without_repeating_the_edge(height: int, width: int, multiple: int) -> None:
    frames = torch.rand(1, 2, 3, height, width)
    ours = pad_to_multiple(frames, multiple)
    expected = np.pad(frames.numpy(), [(0, 0)] * 3 + [(0, -height % multiple), (0, -width % multiple)], mode="reflect")
    np.testing.assert_array_equal(ours.numpy(), expected)
    assert InputRequirements(multiple_of=multiple).padded_size(height, width) == ours.shape[-2:]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 3, 8, 8), r"input has shape \(2, 3, 8, 8\); expected \(b, n, 3, h, w\)"),
        ((1, 2, 1, 8, 8), r"expected \(b, n, 3, h, w\), RGB"),
        ((0, 2, 3, 8, 8), "no size of 0"),
        ((1, 2, 3, 8, 0), "no size of 0"),
        ((1, 1, 3, 8, 8), r"input has 1 frame\(s\); expected at least 2: give more, or repeat the last"),
        ((1, 2, 3, 8, 6), "input frames are 6x8; expected .* multiples of 4: pad them first"),
    ],
    ids=str,
)
def test_shapes_that_a_network_cannot_take_are_refused_with_the_remedy(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        InputRequirements(multiple_of=4).check(torch.zeros(shape))


def test_frames_of_whole_numbers_are_refused() -> None:
    """The network would take them for very bright ones."""
    with pytest.raises(InvalidInput, match=r"input is torch\.uint8; expected floating point in \[0, 1\]"):
        InputRequirements().check(torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8))
