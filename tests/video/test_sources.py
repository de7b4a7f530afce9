"""Sources: what is known of the frames before the first is read."""

from fractions import Fraction
from pathlib import Path

import pytest

from conftest import moving_frames, write_video
from stvsr.video.sources import Part, VideoFile


@pytest.mark.parametrize(
    ("start", "follow_a_pause"), [(Fraction(0), {10}), (Fraction(1, 5), {5})], ids=["whole", "from frame 5"]
)
def test_frames_after_a_pause_are_told_by_their_number_in_the_part(
    tmp_path: Path, start: Fraction, follow_a_pause: set[int]
) -> None:
    write_video(tmp_path / "a.mkv", moving_frames(20, (48, 64)), times=[*range(10), *range(25, 35)])
    assert VideoFile(tmp_path / "a.mkv", Part(start)).breaks == follow_a_pause
