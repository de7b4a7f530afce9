"""Jobs: resuming with an earlier run's tiles and precision, pauses, time estimates."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import count as count_up
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from stvsr.data.png import read_png
from stvsr.errors import InvalidInput
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.network import InputRequirements, Network
from stvsr.video.clock import InputTimes
from stvsr.video.colour import Colour
from stvsr.video.job import Job
from stvsr.video.picture import Picture
from stvsr.video.sinks import PngFolder
from stvsr.video.tiles import Grid
from stvsr.video.upscaling import Upscaler

HEIGHT, WIDTH = 8, 200


class Frames:
    """A source of grey frames."""

    def __init__(self, count: int) -> None:
        self.path = Path("grey")
        self.picture = Picture(WIDTH, HEIGHT, Colour.for_size(WIDTH, HEIGHT))
        self.times = InputTimes(Fraction(25))
        self.count: int | None = count
        self.breaks: frozenset[int] = frozenset()

    def frames(self) -> Iterator[Tensor]:
        for _ in range(self.count or 0):
            yield torch.full((3, HEIGHT, WIDTH), 99, dtype=torch.uint8)


class Recording(Network):
    """Records the widths it is given; after `enough_for` windows, memory is too small for whole frames."""

    requirements = InputRequirements(multiple_of=1, minimum_frames=1)

    def __init__(self, enough_for: int) -> None:
        super().__init__()
        self.enough_for = enough_for
        self.widths: list[int] = []

    def forward(self, lr: Tensor) -> Tensor:
        if lr.shape[-1] == WIDTH:
            if self.enough_for == 0:
                raise MemoryError
            self.enough_for -= 1
        self.widths.append(lr.shape[-1])
        return BicubicBlend()(lr)


def run(folder: Path, network: Network, count: int = 14, limit: Grid | None = None) -> Job:
    folder.mkdir(exist_ok=True)
    sink = PngFolder(folder / "frames")
    upscaler = Upscaler(network, grid=limit)

    def fits(grid: Grid) -> bool:
        # Without a limit nothing fits, as if this run held all free memory: it must not check again.
        return limit is not None and grid.tiles >= limit.tiles

    job = Job(source=Frames(count), upscaler=upscaler, sink=sink, folder=folder, fits=fits, say=print)
    job.run(2 * count - 1)
    return job


def test_a_window_that_is_made_again_is_made_in_the_tiles_of_the_first_time(tmp_path: Path) -> None:
    first = Recording(enough_for=2)
    run(tmp_path / "job", first)
    half = first.widths[-1]
    windows = 5
    assert half < WIDTH
    assert first.widths == [WIDTH] * 2 + [half] * 2 * (windows - 2)
    # A kill lost a frame of the second window and the content of one of the fourth.
    (tmp_path / "job" / "frames" / "00000009.png").unlink()
    (tmp_path / "job" / "frames" / "00000023.png").write_bytes(b"")
    again = Recording(enough_for=99)
    job = run(tmp_path / "job", again)
    assert (tmp_path / "job" / "frames" / "00000023.png").stat().st_size
    assert again.widths == [WIDTH, half, half]
    assert job.upscaler.grid == Grid(1, 2)


def test_less_memory_than_the_first_time_makes_smaller_tiles_of_what_is_left(tmp_path: Path) -> None:
    """This is the remedy if the first run was killed for lack of memory."""
    run(tmp_path / "job", Recording(enough_for=99))
    lost = [tmp_path / "job" / "frames" / f"{number:08d}.png" for number in (16, 22)]
    for path in lost:
        path.unlink()
    again = Recording(enough_for=99)
    run(tmp_path / "job", again, limit=Grid(1, 2))
    assert len(again.widths) == 4
    assert max(again.widths) < WIDTH
    # The job keeps these tiles from then on, even with more memory.
    for path in lost:
        path.unlink()
    third = Recording(enough_for=99)
    run(tmp_path / "job", third, limit=Grid(1, 1))
    assert third.widths == again.widths


def test_less_memory_also_counts_for_windows_whose_tiles_were_known(tmp_path: Path) -> None:
    """The first run has noted tiles for the first window and for a later one."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "settings.json").write_text('{"grids": [[0, 1, 1], [3, 1, 1]], "precision": null}')
    again = Recording(enough_for=99)
    run(tmp_path / "job", again, limit=Grid(1, 2))
    assert len(again.widths) == 5 * 2
    assert max(again.widths) < WIDTH


def test_a_source_without_frames_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="grey: no frame in the requested part"):
        run(tmp_path / "job", BicubicBlend(), 0)


class Autocast(Network):
    """Records for each pass whether it ran in bfloat16."""

    requirements = InputRequirements(multiple_of=1, minimum_frames=1)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.in_bf16: list[bool] = []

    def forward(self, lr: Tensor) -> Tensor:
        self.in_bf16.append(torch.is_autocast_enabled("cpu"))
        return BicubicBlend()(lr)


def test_a_window_that_is_made_again_is_made_in_the_precision_of_the_first_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Black frames decide nothing; the window after them decides for those that follow."""
    monkeypatch.setattr("stvsr.video.upscaling.has_bf16", lambda device: True)
    (tmp_path / "job").mkdir()

    def passes() -> list[bool]:
        network = Autocast()
        sink = PngFolder(tmp_path / "job" / "frames")
        upscaler = Upscaler(network, precision="auto")
        Job(source=Textured(14), upscaler=upscaler, sink=sink, folder=tmp_path / "job", say=print).run(27)
        return network.in_bf16

    # The cut ends the first window; the second runs in both precisions, which are compared.
    assert passes() == [False, False, True, True, True]
    for number in (2, 10, 27):
        (tmp_path / "job" / "frames" / f"{number:08d}.png").unlink()
    assert passes() == [False, False, True, True]
    # Alone, this window would be the first that can decide.
    (tmp_path / "job" / "frames" / "00000027.png").unlink()
    assert passes() == [True]


def test_nothing_is_interpolated_across_a_pause(tmp_path: Path) -> None:
    """The frame before the pause is repeated."""
    source = Brightening(8)
    source.breaks = frozenset({5})
    sink = PngFolder(tmp_path / "frames")
    Job(source=source, upscaler=Upscaler(BicubicBlend()), sink=sink, folder=tmp_path, say=print).run(15)
    levels = [read_png(path).unique().tolist() for path in sorted((tmp_path / "frames").glob("*.png"))]
    assert levels == [[level] for level in (0, 2, 4, 6, 8, 10, 12, 14, 16, 16, 20, 22, 24, 26, 28)]


def test_the_hours_that_are_said_are_those_of_the_frames_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Upscaler, "is_learned", True)
    # Each window takes 56 minutes: 8 for each of the first window's 7 frames.
    monkeypatch.setattr("stvsr.video.job.time", SimpleNamespace(monotonic=count_up(step=3360).__next__))
    said: list[str] = []

    def go() -> None:
        sink = PngFolder(tmp_path / "frames")
        Job(source=Frames(14), upscaler=Upscaler(BicubicBlend()), sink=sink, folder=tmp_path, say=said.append).run(27)

    go()
    assert [text.partition(" hours")[0] for text in said] == ["this will take about 3.6"]
    said.clear()
    # The second window has 6 frames of its own, and 20 are left.
    (tmp_path / "frames" / "00000009.png").unlink()
    go()
    assert [text.partition(" hours")[0] for text in said if "hours" in text] == ["this will take about 3.1"]


def test_without_a_network_no_hours_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding and encoding take the time then, so advice to do without a network would not help."""
    monkeypatch.setattr("stvsr.video.job.time", SimpleNamespace(monotonic=count_up(step=3360).__next__))
    said: list[str] = []
    sink = PngFolder(tmp_path / "frames")
    Job(source=Frames(14), upscaler=Upscaler(BicubicBlend()), sink=sink, folder=tmp_path, say=said.append).run(27)
    assert said == []


def test_of_a_large_frame_tiles_are_counted_and_the_first_tells_how_many_hours_all_will_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Upscaler, "is_learned", True)
    # A tile takes 14 minutes, a window of two 28, which is 4 for each of its 7 frames.
    monkeypatch.setattr("stvsr.video.job.time", SimpleNamespace(monotonic=count_up(step=840).__next__))
    said: list[str] = []
    upscaler = Upscaler(BicubicBlend(), grid=Grid(1, 2))
    sink = PngFolder(tmp_path / "frames")
    Job(source=Frames(14), upscaler=upscaler, sink=sink, folder=tmp_path, say=said.append).run(27)
    assert [text.partition(" hours")[0] for text in said] == ["this will take about 1.8"]
    bar = capsys.readouterr().err
    assert all(tile in bar for tile in ("tile 1/2", "tile 2/2"))
    assert "tile 3" not in bar


class Brightening(Frames):
    """Each frame is brighter by 4 than the one before; the first is black."""

    def frames(self) -> Iterator[Tensor]:
        for number in range(self.count or 0):
            yield torch.full((3, HEIGHT, WIDTH), 4 * number, dtype=torch.uint8)


class Textured(Frames):
    """Black in the first window, noise afterwards."""

    def frames(self) -> Iterator[Tensor]:
        draw = torch.Generator().manual_seed(0)
        noise = torch.randint(256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=draw)
        for number in range(self.count or 0):
            yield torch.zeros_like(noise) if number < 4 else noise // 8 + number
