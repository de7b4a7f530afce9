"""Augmentation keeps frames and resolutions together."""

from collections import Counter
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch

from stvsr.data.augmentation import augment, transform
from stvsr.data.degradation import downsample


@pytest.mark.parametrize(("turns", "flip", "reverse"), list(product(range(4), (False, True), (False, True))))
def test_augmenting_both_equals_degrading_the_augmented(turns: int, flip: bool, reverse: bool) -> None:
    hr = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32)) / 255).float()
    lr = downsample(hr)[::2]
    kwargs = {"turns": turns, "flip": flip, "reverse": reverse}
    assert torch.equal(transform(lr, **kwargs), downsample(transform(hr, **kwargs))[::2])


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ((1, False, False), lambda frames: np.rot90(frames, axes=(2, 3))),
        ((0, True, False), lambda frames: frames[..., ::-1]),
        ((0, False, True), lambda frames: frames[::-1]),
        ((3, True, True), lambda frames: np.rot90(frames, 3, axes=(2, 3))[::-1, ..., ::-1]),
    ],
    ids=["rotation", "flip", "reversal", "all"],
)
def test_each_turns_what_it_says_and_leaves_colours_alone(
    drawn: tuple[int, bool, bool], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 12), dtype=np.uint8)
    assert np.array_equal(transform(torch.from_numpy(frames), *drawn).numpy(), expected(frames))


def test_all_sixteen_transformations_are_equally_likely_and_lr_always_takes_that_of_hr() -> None:
    hr = torch.rand(3, 3, 8, 8)
    seen = Counter[bytes]()
    for seed in range(800):
        lr, augmented = augment(hr[::2], hr, np.random.default_rng(seed))
        assert torch.equal(lr, augmented[::2])
        seen[augmented.numpy().tobytes()] += 1
    assert len(seen) == 16
    # 50 each, give or take four standard deviations.
    assert all(22 < count < 78 for count in seen.values())
