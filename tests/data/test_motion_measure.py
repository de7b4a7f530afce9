"""Measured motion against the true motion of generated scenes."""

import numpy as np
import pytest

from conftest import moving_frames
from scene_truth import truth_of
from stvsr.data.motion_measure import MotionThresholds, measure_motion
from stvsr.data.synthetic import SyntheticScenes
from stvsr.errors import InvalidInput


def test_motion_of_generated_scenes_is_right_to_a_tenth() -> None:
    """The flow blurs edges and cannot follow what is hidden: 5 % off on average, 10 % in the worst scene here."""
    scenes = SyntheticScenes(clips=6, height=160, width=224, seed=7)
    errors = []
    for index in range(6):
        frames = scenes.read(index, np.random.default_rng(0)).frames
        truth = truth_of(scenes, index).flow.norm(dim=1).mean().item()
        errors.append(abs(np.mean(measure_motion(frames)) / truth - 1))
    assert np.mean(errors) < 0.05
    assert max(errors) < 0.10


@pytest.mark.parametrize("speed", [0, 1, 3])
def test_a_picture_that_moves_by_whole_pixels_is_measured(speed: int) -> None:
    motion = measure_motion(moving_frames(7, (64, 96), speed=speed))
    assert len(motion) == 6
    assert motion == pytest.approx([speed] * 6, rel=0.1, abs=0.02)


@pytest.mark.parametrize(
    ("motion", "split"), [(0.0, "slow"), (1.49, "slow"), (1.5, "medium"), (3.9, "medium"), (4.0, "fast")]
)
def test_thresholds_are_where_a_split_begins(motion: float, split: str) -> None:
    assert MotionThresholds(1.5, 4.0).split(motion) == split


@pytest.mark.parametrize(("medium", "fast"), [(0, 4), (4, 4), (5, 4), (-1, 4)])
def test_thresholds_that_make_no_sense_are_refused(medium: float, fast: float) -> None:
    with pytest.raises(InvalidInput, match="expected 0 < medium < fast"):
        MotionThresholds(medium, fast)
