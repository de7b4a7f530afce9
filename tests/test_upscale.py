"""`stvsr-upscale` from the outside: what it makes of an input, by file, folder and pipe."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch

from conftest import BICUBIC, Run, moving_frames, read_video, write_frames, write_video, write_y4m
from stvsr import upscale as command
from stvsr.checkpoint import load_network
from stvsr.data.png import read_png, write_png
from stvsr.models import chunking
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.video import budget
from stvsr.video.colour import Colour
from stvsr.video.picture import Picture
from stvsr.video.sources import Part, VideoFile
from stvsr.video.tiles import Grid
from stvsr.video.upscaling import Upscaler, upscale


@contextmanager
def standard_input(path: Path) -> Iterator[None]:
    """Redirects standard input to a file, for this process too."""
    kept = os.dup(0)
    try:
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


# Counts in between are tested in tests/video/test_upscaling.py.
@pytest.mark.parametrize("count", [1, 13])
def test_a_lossless_video_holds_exactly_what_the_network_gives(
    run_upscale: Run, tmp_path: Path, small_checkpoint: Path, count: int
) -> None:
    frames = moving_frames(count)
    write_video(tmp_path / "in.mkv", frames)
    status, error = run_upscale("in.mkv", "out.mkv", "--codec", "ffv1", "--checkpoint", small_checkpoint)
    assert status == 0, error
    expected = torch.stack(list(upscale(frames, Upscaler(load_network(small_checkpoint), precision="auto"))))
    assert len(expected) == 2 * count - 1
    assert torch.equal(read_video(tmp_path / "out.mkv"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv", "small.ckpt"]


def test_without_a_checkpoint_the_starter_weights_are_used_and_the_better_ones_named(
    run_upscale: Run, tmp_path: Path
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(2))
    status, error = run_upscale("in.mkv", "out.mkv", "--codec", "ffv1")
    assert status == 0, error
    assert sum("the starter weights" in line and "https://" in line for line in error.splitlines()) == 1
    status, error = run_upscale("in.mkv", "named.mkv", "--codec", "ffv1", "--checkpoint", "starter")
    assert status == 0, error
    assert "the starter weights" not in error
    assert torch.equal(read_video(tmp_path / "out.mkv"), read_video(tmp_path / "named.mkv"))


def test_a_folder_of_frames_goes_in_and_out(run_upscale: Run, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    frames = moving_frames(5)
    for number, frame in enumerate(frames, start=3):
        write_png(tmp_path / "frames" / f"im{number}.png", frame)
    status, error = run_upscale("frames", "large", "--rate", "24000/1001", *BICUBIC)
    assert status == 0, error
    files = sorted((tmp_path / "large").iterdir())
    assert [file.name for file in files] == [f"{number:08d}.png" for number in range(1, 10)]
    expected = list(upscale(frames, Upscaler(BicubicBlend())))
    assert torch.equal(torch.stack([read_png(file) for file in files]), torch.stack(expected))
    status, error = run_upscale("frames", "out.mkv", "--rate", "24000/1001", "--codec", "ffv1", *BICUBIC)
    assert status == 0, error
    assert VideoFile(tmp_path / "out.mkv", Part()).times.rate == pytest.approx(Fraction(48000, 1001), rel=1e-6)
    assert torch.equal(read_video(tmp_path / "out.mkv"), torch.stack(expected))


@pytest.mark.parametrize(
    ("options", "rate", "frames", "size"),
    [
        ([], Fraction(50), 15, (96, 64)),
        (["--slow-motion"], Fraction(25), 15, (96, 64)),
        (["--no-interpolate"], Fraction(25), 8, (96, 64)),
        (["--scale", "2"], Fraction(50), 15, (48, 32)),
        (["--preview"], Fraction(50), 15, (192, 64)),
        (["--start", "0.1", "--duration", "0:00:00.12"], Fraction(50), 5, (96, 64)),
        (["--duration", "0.08"], Fraction(50), 3, (96, 64)),
        (["--start", "0.2"], Fraction(50), 5, (96, 64)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_options_decide_rate_number_and_size_of_the_frames(
    run_upscale: Run, tmp_path: Path, options: list[str], rate: Fraction, frames: int, size: tuple[int, int]
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(8))
    status, error = run_upscale("in.mkv", "out.mkv", "--codec", "ffv1", *BICUBIC, *options)
    assert status == 0, error
    video = VideoFile(tmp_path / "out.mkv", Part())
    assert (video.times.rate, video.count) == (rate, frames)
    assert (video.picture.width, video.picture.height) == size


@pytest.mark.parametrize(
    ("part", "first", "stop"),
    [(["--start", "0.2", "--duration", "0.24"], 5, 11), (["--start", "0.6"], 15, 20)],
    ids=["middle", "end"],
)
@pytest.mark.parametrize(("source", "options"), [("in.mkv", []), ("frames", ["--rate", "25"]), ("-", [])])
def test_a_part_holds_the_frames_of_that_time(
    run_upscale: Run, tmp_path: Path, source: str, options: list[str], part: list[str], first: int, stop: int
) -> None:
    # Y4M rounds colours, so the other inputs are made from its frames.
    frames = read_video(write_y4m(tmp_path / "in.y4m", moving_frames(20)))
    write_video(tmp_path / "in.mkv", frames)
    write_frames(tmp_path / "frames", frames, first=3)
    with standard_input(tmp_path / "in.y4m"):
        status, error = run_upscale(source, "out.mkv", "--codec", "ffv1", *BICUBIC, *options, *part)
    assert status == 0, error
    expected = list(upscale(frames[first:stop], Upscaler(BicubicBlend())))
    assert torch.equal(read_video(tmp_path / "out.mkv"), torch.stack(expected))


def test_the_network_runs_in_the_precision_that_is_asked_for(
    run_upscale: Run, tmp_path: Path, small_checkpoint: Path
) -> None:
    frames = moving_frames(4)
    write_video(tmp_path / "in.mkv", frames)
    made, expected = [], []
    for precision in ("bf16", "float32"):
        options = ["--checkpoint", small_checkpoint, "--device", "cpu", "--precision", precision]
        status, error = run_upscale("in.mkv", f"{precision}.mkv", "--codec", "ffv1", *options)
        assert status == 0, error
        made.append(read_video(tmp_path / f"{precision}.mkv"))
        expected.append(
            torch.stack(list(upscale(frames, Upscaler(load_network(small_checkpoint), precision=precision))))
        )
    assert not torch.equal(*expected)
    assert list(map(torch.equal, made, expected)) == [True, True]


def test_quality_and_pixel_format_can_be_chosen(run_upscale: Run, tmp_path: Path) -> None:
    frames = moving_frames(6)
    write_video(tmp_path / "in.mkv", frames)
    exact = torch.stack(list(upscale(frames, Upscaler(BicubicBlend())))).float()
    sizes, errors = [], []
    for crf, pixel_format in (("5", "yuv444p"), ("45", "yuv420p")):
        path = tmp_path / f"{crf}.mp4"
        status, error = run_upscale("in.mkv", path.name, *BICUBIC, "--crf", crf, "--pixel-format", pixel_format)
        assert status == 0, error
        with av.open(path) as container:
            assert container.streams.video[0].codec_context.pix_fmt == pixel_format
        sizes.append(path.stat().st_size)
        errors.append((read_video(path).float() - exact).abs().mean().item())
    assert sizes[0] > sizes[1]
    assert errors[0] < errors[1] / 2


def test_frames_are_divided_into_as_many_tiles_as_the_memory_that_is_allowed_asks_for(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "used_memory", lambda: 0)
    made, taken = Upscaler.__call__, []
    monkeypatch.setattr(Upscaler, "__call__", lambda self, *given: taken.append(self.grid) or made(self, *given))
    write_video(tmp_path / "in.mkv", moving_frames(4, (800, 16)))
    for name, memory in (("whole", "1"), ("tiles", "0.035")):
        status, error = run_upscale("in.mkv", name, *BICUBIC, "--device", "cpu", "--memory", memory)
        assert status == 0, error
    whole, tiles = taken
    assert whole == Grid()
    assert tiles.rows > 1
    assert torch.equal(read_video(tmp_path / "tiles"), read_video(tmp_path / "whole"))


def test_more_windows_than_a_segment_join_without_a_seam(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving_frames(23)
    write_video(tmp_path / "in.mkv", frames)
    monkeypatch.setattr(command, "LONGEST_SEGMENT", 2)
    for codec in ("ffv1", "h264", "h265"):
        status, error = run_upscale("in.mkv", f"{codec}.mkv", "--codec", codec, *BICUBIC)
        assert status == 0, error
    expected = torch.stack(list(upscale(frames, Upscaler(BicubicBlend()))))
    assert torch.equal(read_video(tmp_path / "ffv1.mkv"), expected)
    for codec in ("h264", "h265"):
        with av.open(tmp_path / f"{codec}.mkv") as container:
            times = [frame.time for frame in container.decode(video=0)]
        assert times == pytest.approx([number / 50 for number in range(45)], abs=6e-4)


@pytest.mark.parametrize(
    ("width", "height", "device", "learned", "windows"),
    [
        (64, 48, "cpu", True, 16),
        (180, 144, "cpu", True, 11),
        (1280, 720, "cpu", True, 1),
        (1280, 720, "cpu", False, 16),
        (1280, 720, "cuda", True, 16),
        (3840, 2160, "cuda", True, 3),
        (180, 144, "mps", True, 11),
    ],
)
def test_a_segment_is_minutes_of_work_and_at_least_a_window(
    width: int, height: int, device: str, learned: bool, windows: int
) -> None:
    # A stand-in, which needs no GPU.
    upscaler: Any = SimpleNamespace(is_learned=learned, device=torch.device(device))
    picture = Picture(width, height, Colour.for_size(width, height))
    assert command.windows_per_segment(upscaler, picture) == windows


def test_y4m_goes_through_a_pipe_and_what_is_cut_off_is_refused(run_upscale: Run, tmp_path: Path) -> None:
    source = write_y4m(tmp_path / "in.y4m", moving_frames(7), Fraction(30000, 1001))
    program = [sys.executable, "-m", "stvsr.upscale", "-", "-", *BICUBIC]
    # `-` means the pipe even where a file has that name.
    (tmp_path / "-").touch()
    done = subprocess.run(program, input=source.read_bytes(), capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"YUV4MPEG2 W96 H64 F60000:1001 ")
    assert done.stdout.count(b"FRAME\n") == 13
    (tmp_path / "made.y4m").write_bytes(done.stdout)
    made = read_video(tmp_path / "made.y4m").float()
    expected = torch.stack(list(upscale(list(read_video(source)), Upscaler(BicubicBlend())))).float()
    assert (made - expected).abs().mean() < 1, "as it was, but for the rounding of colours"

    # As left by a program that crashed.
    cut = tmp_path / "cut.y4m"
    cut.write_bytes(source.read_bytes()[:-100])
    for name in ("-", cut):
        with standard_input(cut):
            status, error = run_upscale(name, "out.y4m", *BICUBIC)
        assert (status, "ends within a frame" in error) == (1, True), error

    for nothing in (b"", b"once upon a time\n" * 1000):
        (tmp_path / "nothing").write_bytes(nothing)
        with standard_input(tmp_path / "nothing"):
            status, error = run_upscale("-", "out.y4m", *BICUBIC)
        assert (status, error.count("\n")) == (1, 1), error
        assert error.startswith("error: standard input: not Y4M")
    assert not (tmp_path / "out.y4m").exists()


@pytest.mark.parametrize(
    ("rate", "doubled"),
    [(Fraction(2997, 100), Fraction(60000, 1001)), (Fraction(120000, 1001), Fraction(240000, 1001))],
    ids=["29.97", "119.88"],
)
def test_the_rate_of_a_pipe_is_taken_as_it_is_meant(
    run_upscale: Run, tmp_path: Path, rate: Fraction, doubled: Fraction
) -> None:
    """As with a file, 29.97 means 30000/1001. FFmpeg's guess of a high rate would be a round number."""
    with standard_input(write_y4m(tmp_path / "in.y4m", moving_frames(3), rate)):
        assert run_upscale("-", "out.mp4", *BICUBIC)[0] == 0
    with av.open(tmp_path / "out.mp4") as container:
        assert container.streams.video[0].average_rate == doubled


def test_a_search_for_what_fits_into_the_memory_is_said_where_it_takes_time(
    run_upscale: Run, tmp_path: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(2))
    network = ("--checkpoint", str(small_checkpoint), "--device", "cpu")
    assert "finding tiles" not in run_upscale("in.mkv", "small.mkv", *network)[1]
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 16)
    status, error = run_upscale("in.mkv", "large.mkv", *network)
    assert status == 0
    assert "finding tiles that fit into memory" in error


def test_help_reads_like_a_page(
    run_upscale: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["stvsr-upscale", "--help"])
    with pytest.raises(SystemExit):
        command.main()
    page = capsys.readouterr().out
    for word in ("--checkpoint", "--slow-motion", "--preview", "examples:", "yuv4mpegpipe"):
        assert word in page


def test_a_long_job_on_a_cpu_is_said_with_its_hours(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Upscaler, "is_learned", True)
    write_video(tmp_path / "in.mkv", moving_frames(8))
    status, error = run_upscale("in.mkv", "quick.mkv", *BICUBIC)
    assert "hours on the CPU" not in error
    monkeypatch.setattr("stvsr.video.job.SLOW", 0.0)
    status, error = run_upscale("in.mkv", "out.mkv", *BICUBIC)
    assert status == 0
    assert "hours on the CPU; a GPU should be much faster (to try first: --duration 0.1, or --method bicubic)" in error


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """60 seconds take at most 5 % more than 10 seconds of the same video."""
    program = "import resource, stvsr.upscale as u\nu.main()\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    taken = []
    scene = moving_frames(250, (90, 160))
    for seconds in (10, 60):
        path = write_video(tmp_path / f"{seconds}.mkv", scene.repeat(seconds // 10, 1, 1, 1))
        arguments = [str(path), str(tmp_path / f"{seconds}.mp4"), *BICUBIC]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        taken.append(int(done.stdout))
    assert taken[1] <= 1.05 * taken[0], f"{taken[0] / 1024:.0f} and {taken[1] / 1024:.0f} MiB"
