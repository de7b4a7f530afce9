"""A job may use the memory that is free, or as much as the user allows."""

import pytest
import torch

from stvsr.errors import InvalidInput
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.video import budget
from stvsr.video.budget import Budget
from stvsr.video.colour import Colour
from stvsr.video.memory import bytes_needed
from stvsr.video.picture import Picture
from stvsr.video.tiles import Grid


def budget_for(width: int, height: int, device: str, limit: float | None = None) -> Budget:
    lr, hr = (Picture(n * width, n * height, Colour.for_size(width, height)) for n in (1, 4))
    return Budget(BicubicBlend(), torch.device(device), lr, hr, 118, limit)


@pytest.mark.parametrize(
    ("limit", "free", "fitting"), [(None, 2**31, True), (None, 2**20, False), (64, 2**20, True), (0.1, 2**31, False)]
)
def test_tiles_of_an_earlier_run_are_taken_if_there_is_room_for_them_now(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, free: int, fitting: bool
) -> None:
    """Otherwise a job killed for lack of memory would be killed again every time."""
    monkeypatch.setattr(budget, "available_memory", lambda device: free)
    assert budget_for(240, 160, "cpu", limit).fits(Grid()) is fitting


@pytest.mark.parametrize(("share", "fitting"), [(1.01, True), (0.99, False)])
def test_tiles_of_an_earlier_run_may_take_all_that_is_free(
    monkeypatch: pytest.MonkeyPatch, share: float, fitting: bool
) -> None:
    """They were chosen for a part of it, so they are kept even if a little less is free now."""
    job = budget_for(240, 160, "cpu")
    needed = bytes_needed(Grid(), job.network, 160, 240)
    monkeypatch.setattr(budget, "available_memory", lambda device: share * needed + (2 * 7 * 3 + 118) * 960 * 640)
    assert job.fits(Grid()) is fitting


def test_what_is_allowed_is_for_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory the process already holds counts towards a limit; it is not part of what is free."""
    monkeypatch.setattr(budget, "available_memory", lambda device: 2**33)
    monkeypatch.setattr(budget, "used_memory", lambda: 2**30)
    finished = (2 * 7 * 3 + 118) * 960 * 640
    assert budget_for(240, 160, "cpu", limit=4).for_network(0.5) == 3 * 2**30 - finished
    assert budget_for(240, 160, "cpu").for_network(0.5) == 2**32 - finished


def test_tiles_are_chosen_for_a_part_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs need memory too, and the estimate may be off."""
    asked: list[float] = []
    monkeypatch.setattr(budget, "available_memory", lambda device: 2**33)
    monkeypatch.setattr(budget, "grid_within", lambda within, *_, limited_by: asked.append(within) or limited_by)
    job = budget_for(240, 160, "cpu")
    assert job.grid() == "8.0 GiB are free, of which 70% may be used"  # type: ignore[comparison-overlap]
    assert asked == [job.for_network(0.7)]


def test_a_gpu_asks_the_machine_for_room_for_finished_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "available_memory", lambda device: 2**33 if device.type == "cuda" else 2**34)
    assert budget_for(1920, 1080, "cuda").for_network(0.5) == 2**32
    assert budget_for(1920, 1080, "cuda", limit=3).for_network(0.5) == 3 * 2**30
    with pytest.raises(InvalidInput, match=r"15360x8640 take 19\.8 GiB of main memory, of which 16\.0"):
        budget_for(3840, 2160, "cuda").for_network(0.5)
