"""The batch contract refuses what does not belong together."""

import pytest
import torch

from stvsr.data.clip import Batch, Clip, Footage, to_8bit, to_float
from stvsr.data.clip_sets import ClipInfo
from stvsr.errors import InvalidInput


def clip(h: int = 4, w: int = 8, **changes: object) -> Clip:
    fields = {
        "lr": torch.rand(4, 3, h, w),
        "hr": torch.rand(7, 3, 4 * h, 4 * w),
        "name": "a",
        "motion": "slow",
    }
    return Clip(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("hr", [(6, 3, 16, 32), (7, 3, 16, 16), (7, 1, 16, 32)], ids=["frames", "size", "channels"])
def test_lr_and_hr_that_do_not_belong_together_are_refused(hr: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"clip a: .* expected HR \(7, 3, 16, 32\)"):
        clip(hr=torch.rand(*hr))


def test_batch_stacks_clips_in_order() -> None:
    clips = [clip(name="a"), clip(name="b", motion="fast", skipped=("bad",))]
    batch = Batch.collate(clips)
    assert batch.lr.shape == (2, 4, 3, 4, 8)
    assert batch.hr.shape == (2, 7, 3, 16, 32)
    assert (batch.names, batch.motions, batch.skipped, len(batch)) == (
        ["a", "b"],
        ["slow", "fast"],
        ["bad"],
        2,
    )
    assert torch.equal(batch.hr[1], clips[1].hr)


def test_batch_of_different_sizes_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInput, match="eval_batch_size=1"):
        Batch.collate([clip(4, 8), clip(8, 8)])


def test_moving_a_batch_moves_both_resolutions() -> None:
    moved = Batch.collate([clip()]).to(torch.device("meta"))
    assert moved.lr.is_meta
    assert moved.hr.is_meta


def test_a_batch_in_page_locked_memory_still_tells_of_damaged_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a training run on a GPU would not report what it left out."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda frames: frames.clone())
    pinned = Batch.collate([clip(skipped=("bad",))]).pin_memory()
    assert (pinned.names, pinned.motions, pinned.skipped) == (["a"], ["slow"], ["bad"])


@pytest.mark.parametrize("frames", [torch.zeros(7, 3, 4, 4), torch.zeros(7, 1, 4, 4, dtype=torch.uint8)])
def test_footage_is_8_bit_rgb(frames: torch.Tensor) -> None:
    with pytest.raises(InvalidInput, match="expected uint8"):
        Footage(frames=frames, name="a", motion="all")


def test_a_misspelt_motion_split_does_not_pass_for_one() -> None:
    """Its clips would count only in the overall mean, or end a training run at its first validation."""
    with pytest.raises(InvalidInput, match="clip a: motion is 'fsat'; expected slow, medium, fast or all"):
        Footage(frames=torch.zeros(7, 3, 4, 4, dtype=torch.uint8), name="a", motion="fsat")
    with pytest.raises(InvalidInput, match="clip a: motion is 'fsat'"):
        ClipInfo(clip_set="set", name="a", frames=7, first_number=0, motion="fsat")


def test_frames_that_are_floating_point_already_are_not_divided_again() -> None:
    with pytest.raises(InvalidInput, match=r"frames are torch\.float32; expected uint8"):
        to_float(torch.rand(3, 4, 4))


def test_other_whole_numbers_are_not_taken_for_frames_between_0_and_1() -> None:
    """All but black would become white."""
    with pytest.raises(InvalidInput, match=r"frames are torch\.int64; expected uint8, or floating point"):
        to_8bit(torch.zeros(3, 4, 4, dtype=torch.int64))


@pytest.mark.parametrize("together", [1, 7 * 64, 2**19])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rounding_to_8_bits_clamps_and_leaves_what_it_is_given_alone(
    dtype: torch.dtype, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stvsr.data.clip.TOGETHER", together)
    frames = torch.linspace(-0.5, 1.5, 2 * 3 * 150 * 7).to(dtype).view(2, 3, 150, 7)
    before = frames.clone()
    expected = (before.double().clamp(0, 1) * 255).round().to(torch.uint8)
    assert torch.equal(to_8bit(frames), expected)
    assert torch.equal(frames, before)
