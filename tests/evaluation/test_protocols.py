"""Protocols: which frames count, each once, and how clips become one number."""

import pytest
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from conftest import VID4
from stvsr.data.clip_sets import ClipInfo
from stvsr.errors import InvalidInput
from stvsr.evaluation.protocols import Protocol

PAPER, RELEASED = Protocol("paper", True, False), Protocol("released", False, False)
RSTT = Protocol("rstt", True, True)


def clip(frames: int) -> ClipInfo:
    return ClipInfo("set", "clip", frames, 1, None)


@pytest.mark.parametrize(("name", "frames"), [("paper", 171), ("released", 160), ("rstt", 171)])
def test_vid4_has_as_many_frames_as_papers_and_scripts_count(configure, name: str, frames: int) -> None:  # type: ignore[no-untyped-def]
    protocol = instantiate(configure("evaluate", f"protocol={name}").protocol)
    assert protocol.name == name
    assert sum(len(window.frames) for n in VID4.values() for window in protocol.windows(clip(n))) == frames


@given(frames=st.integers(7, 200))
def test_paper_counts_every_frame_once_in_order(frames: int) -> None:
    counted = [frame for window in PAPER.windows(clip(frames)) for frame in window.frames]
    assert counted == list(range(frames))


@given(frames=st.integers(7, 200))
def test_released_counts_whole_windows_only(frames: int) -> None:
    counted = [frame for window in RELEASED.windows(clip(frames)) for frame in window.frames]
    assert counted == list(range((frames - 1) // 6 * 6 + 1))


@given(frames=st.integers(7, 200))
def test_windows_lie_within_the_clip_and_know_which_frames_were_given(frames: int) -> None:
    for window in PAPER.windows(clip(frames)):
        assert 0 <= window.first <= frames - 7
        inputs = {window.first + position for position in (0, 2, 4, 6)}
        assert [frame in inputs for frame in window.frames] == window.given


def test_a_last_window_moved_back_by_an_odd_number_gives_other_frames_than_the_rest() -> None:
    """34 frames: the windows start at 0, 6, …, 24 and, moved back, at 27; frame 32 is then synthesised, 33 given."""
    last = PAPER.windows(clip(34))[-1]
    assert (last.first, list(last.frames), last.given) == (27, [31, 32, 33], [True, False, True])


@pytest.mark.parametrize("frames", [0, 1, 6])
def test_a_clip_shorter_than_a_window_is_refused(frames: int) -> None:
    with pytest.raises(InvalidInput, match=rf"clip clip: {frames} frames; expected at least 7"):
        PAPER.windows(clip(frames))


def test_rstt_averages_folders_and_the_others_clips() -> None:
    values, names = [1.0, 2.0, 6.0], ["00001/1", "00001/2", "00002/1"]
    assert PAPER.mean(values, names) == pytest.approx(3.0)
    assert RSTT.mean(values, names) == pytest.approx((1.5 + 6.0) / 2)


def test_every_protocol_says_what_it_is() -> None:
    assert "all frames" in str(PAPER)
    assert "the tail of a clip is left out" in str(RELEASED)
    assert "folders" in str(RSTT)
    for protocol in (PAPER, RELEASED, RSTT):
        assert str(protocol).startswith(f"protocol {protocol.name}: PSNR and SSIM on Y of BT.601")
