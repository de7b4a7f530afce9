"""`stvsr-upscale` from the outside: files in, files out, kills, bad input. In separate processes where it matters."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from conftest import SMALL_NETWORK, is_taken, taken_elsewhere, wait_until, write_frames
from stvsr import upscale as command
from stvsr.checkpoint import MODEL_KEY, VARIANT_KEY, load_network
from stvsr.config import resolved
from stvsr.data.png import read_png, write_png
from stvsr.models import chunking
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.video import budget, delivery
from stvsr.video.colour import Colour
from stvsr.video.job import Job
from stvsr.video.options import parser
from stvsr.video.picture import Picture
from stvsr.video.sinks import SegmentedVideo
from stvsr.video.sources import Part, VideoFile
from stvsr.video.tiles import Grid
from stvsr.video.upscaling import Upscaler, upscale

Run = Callable[..., tuple[int, str]]

BICUBIC = ["--method", "bicubic"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, in `tmp_path`: exit status and standard error."""
    # If a stage outlives a failure, the command ends its process at once; the tests' process must not end.
    monkeypatch.setattr(command, "still_running", lambda: False)

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["stvsr-upscale", *map(str, arguments)])
        status = 0
        try:
            command.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, capsys.readouterr().err

    return call


def write_clip(path: Path, frames: list[Tensor], rate: Fraction | int = 25) -> Path:
    """A lossless video of RGB frames, in Matroska."""
    return _write(path, frames, rate, "matroska", "ffv1", "bgr0")


def write_y4m(path: Path, frames: list[Tensor], rate: Fraction | int = 25) -> Path:
    """The frames as raw Y4M, in colours rounded to YUV."""
    return _write(path, frames, rate, "yuv4mpegpipe", "wrapped_avframe", "yuv444p")


def _write(path: Path, frames: list[Tensor], rate: Fraction | int, form: str, codec: str, pixels: str) -> Path:
    with av.open(path, "w", format=form, container_options={"strict": "-1"}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[1:]
        stream.pix_fmt = pixels
        for number, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            image = image.reformat(format=pixels)
            image.pts = number
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


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


def moving(count: int, height: int = 16, width: int = 24, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 4 + (width + count) // 8, generator=generator)
    soft = torch.nn.functional.interpolate(coarse, size=(height, width + count), mode="bicubic")[0].clamp(0, 1)
    picture = (soft * 255).to(torch.uint8)
    return [picture[..., first : first + width].contiguous() for first in range(count)]


def read_clip(path: Path) -> Tensor:
    """All frames of a video, `(t, 3, H, W)`."""
    return torch.stack(list(VideoFile(path, Part()).frames()))


@pytest.fixture
def checkpoint(
    small_network: Callable[..., torch.nn.Module], configure: Callable[..., DictConfig], tmp_path: Path
) -> Path:
    """A checkpoint of a small (a), which costs a tenth of (e) and is run as all others are."""
    state = {f"network.{name}": tensor for name, tensor in small_network("a").state_dict().items()}
    model = resolved(configure("train", "ablation=a", *SMALL_NETWORK).model)
    path = tmp_path / "small.ckpt"
    torch.save({MODEL_KEY: model, VARIANT_KEY: "a", "state_dict": state}, path)
    return path


# Counts in between are tested in tests/video/test_upscaling.py.
@pytest.mark.parametrize("count", [1, 13])
def test_a_lossless_video_holds_exactly_what_the_network_gives(
    run: Run, tmp_path: Path, checkpoint: Path, count: int
) -> None:
    frames = moving(count)
    write_clip(tmp_path / "in.mkv", frames)
    status, error = run("in.mkv", "out.mkv", "--codec", "ffv1", "--checkpoint", checkpoint)
    assert status == 0, error
    expected = torch.stack(list(upscale(frames, Upscaler(load_network(checkpoint), precision="auto"))))
    assert len(expected) == 2 * count - 1
    assert torch.equal(read_clip(tmp_path / "out.mkv"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv", "small.ckpt"]


def test_without_a_checkpoint_the_starter_weights_are_used_and_the_better_ones_named(run: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mkv", moving(2))
    status, error = run("in.mkv", "out.mkv", "--codec", "ffv1")
    assert status == 0, error
    assert sum("the starter weights" in line and "https://" in line for line in error.splitlines()) == 1
    status, error = run("in.mkv", "named.mkv", "--codec", "ffv1", "--checkpoint", "starter")
    assert status == 0, error
    assert "the starter weights" not in error
    assert torch.equal(read_clip(tmp_path / "out.mkv"), read_clip(tmp_path / "named.mkv"))


def test_a_missing_input_is_one_line_also_without_a_checkpoint(run: Run) -> None:
    status, error = run("missing.mp4", "out.mp4")
    assert status == 1
    (line,) = error.splitlines()
    assert line.startswith("error: missing.mp4")


def test_a_folder_of_frames_goes_in_and_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    frames = moving(5)
    for number, frame in enumerate(frames, start=3):
        write_png(tmp_path / "frames" / f"im{number}.png", frame)
    status, error = run("frames", "large", "--rate", "24000/1001", *BICUBIC)
    assert status == 0, error
    files = sorted((tmp_path / "large").iterdir())
    assert [file.name for file in files] == [f"{number:08d}.png" for number in range(1, 10)]
    expected = list(upscale(frames, Upscaler(BicubicBlend())))
    assert torch.equal(torch.stack([read_png(file) for file in files]), torch.stack(expected))
    status, error = run("frames", "out.mkv", "--rate", "24000/1001", "--codec", "ffv1", *BICUBIC)
    assert status == 0, error
    assert VideoFile(tmp_path / "out.mkv", Part()).times.rate == pytest.approx(Fraction(48000, 1001), rel=1e-6)
    assert torch.equal(read_clip(tmp_path / "out.mkv"), torch.stack(expected))


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
    run: Run, tmp_path: Path, options: list[str], rate: Fraction, frames: int, size: tuple[int, int]
) -> None:
    write_clip(tmp_path / "in.mkv", moving(8))
    status, error = run("in.mkv", "out.mkv", "--codec", "ffv1", *BICUBIC, *options)
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
    run: Run, tmp_path: Path, source: str, options: list[str], part: list[str], first: int, stop: int
) -> None:
    # Y4M rounds colours, so the other inputs are made from its frames.
    frames = read_clip(write_y4m(tmp_path / "in.y4m", moving(20)))
    write_clip(tmp_path / "in.mkv", list(frames))
    write_frames(tmp_path / "frames", frames, first=3)
    with standard_input(tmp_path / "in.y4m"):
        status, error = run(source, "out.mkv", "--codec", "ffv1", *BICUBIC, *options, *part)
    assert status == 0, error
    expected = list(upscale(frames[first:stop], Upscaler(BicubicBlend())))
    assert torch.equal(read_clip(tmp_path / "out.mkv"), torch.stack(expected))


def test_the_network_runs_in_the_precision_that_is_asked_for(run: Run, tmp_path: Path, checkpoint: Path) -> None:
    frames = moving(4)
    write_clip(tmp_path / "in.mkv", frames)
    made, expected = [], []
    for precision in ("bf16", "float32"):
        options = ["--checkpoint", checkpoint, "--device", "cpu", "--precision", precision]
        status, error = run("in.mkv", f"{precision}.mkv", "--codec", "ffv1", *options)
        assert status == 0, error
        made.append(read_clip(tmp_path / f"{precision}.mkv"))
        expected.append(torch.stack(list(upscale(frames, Upscaler(load_network(checkpoint), precision=precision)))))
    assert not torch.equal(*expected)
    assert list(map(torch.equal, made, expected)) == [True, True]


def test_quality_and_pixel_format_can_be_chosen(run: Run, tmp_path: Path) -> None:
    frames = moving(6)
    write_clip(tmp_path / "in.mkv", frames)
    exact = torch.stack(list(upscale(frames, Upscaler(BicubicBlend())))).float()
    sizes, errors = [], []
    for crf, pixel_format in (("5", "yuv444p"), ("45", "yuv420p")):
        path = tmp_path / f"{crf}.mp4"
        status, error = run("in.mkv", path.name, *BICUBIC, "--crf", crf, "--pixel-format", pixel_format)
        assert status == 0, error
        with av.open(path) as container:
            assert container.streams.video[0].codec_context.pix_fmt == pixel_format
        sizes.append(path.stat().st_size)
        errors.append((read_clip(path).float() - exact).abs().mean().item())
    assert sizes[0] > sizes[1]
    assert errors[0] < errors[1] / 2


def test_frames_are_divided_into_as_many_tiles_as_the_memory_that_is_allowed_asks_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "used_memory", lambda: 0)
    made, taken = Upscaler.__call__, []
    monkeypatch.setattr(Upscaler, "__call__", lambda self, *given: taken.append(self.grid) or made(self, *given))
    write_clip(tmp_path / "in.mkv", moving(4, 800, 16))
    for name, memory in (("whole", "1"), ("tiles", "0.035")):
        status, error = run("in.mkv", name, *BICUBIC, "--device", "cpu", "--memory", memory)
        assert status == 0, error
    whole, tiles = taken
    assert whole == Grid()
    assert tiles.rows > 1
    assert torch.equal(pictures(tmp_path / "tiles"), pictures(tmp_path / "whole"))


def test_more_windows_than_a_segment_join_without_a_seam(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving(23)
    write_clip(tmp_path / "in.mkv", frames)
    monkeypatch.setattr(command, "LONGEST_SEGMENT", 2)
    for codec in ("ffv1", "h264", "h265"):
        status, error = run("in.mkv", f"{codec}.mkv", "--codec", codec, *BICUBIC)
        assert status == 0, error
    expected = torch.stack(list(upscale(frames, Upscaler(BicubicBlend()))))
    assert torch.equal(read_clip(tmp_path / "ffv1.mkv"), expected)
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


# --- pipes


def test_y4m_goes_through_a_pipe_and_what_is_cut_off_is_refused(run: Run, tmp_path: Path) -> None:
    source = write_y4m(tmp_path / "in.y4m", moving(7), Fraction(30000, 1001))
    program = [sys.executable, "-m", "stvsr.upscale", "-", "-", *BICUBIC]
    # `-` means the pipe even where a file has that name.
    (tmp_path / "-").touch()
    done = subprocess.run(program, input=source.read_bytes(), capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"YUV4MPEG2 W96 H64 F60000:1001 ")
    assert done.stdout.count(b"FRAME\n") == 13
    (tmp_path / "made.y4m").write_bytes(done.stdout)
    made = read_clip(tmp_path / "made.y4m").float()
    expected = torch.stack(list(upscale(list(read_clip(source)), Upscaler(BicubicBlend())))).float()
    assert (made - expected).abs().mean() < 1, "as it was, but for the rounding of colours"

    # As left by a program that crashed.
    cut = tmp_path / "cut.y4m"
    cut.write_bytes(source.read_bytes()[:-100])
    for name in ("-", cut):
        with standard_input(cut):
            status, error = run(name, "out.y4m", *BICUBIC)
        assert (status, "ends within a frame" in error) == (1, True), error

    for nothing in (b"", b"once upon a time\n" * 1000):
        (tmp_path / "nothing").write_bytes(nothing)
        with standard_input(tmp_path / "nothing"):
            status, error = run("-", "out.y4m", *BICUBIC)
        assert (status, error.count("\n")) == (1, 1), error
        assert error.startswith("error: standard input: not Y4M")
    assert not (tmp_path / "out.y4m").exists()


@pytest.mark.parametrize(
    ("rate", "doubled"),
    [(Fraction(2997, 100), Fraction(60000, 1001)), (Fraction(120000, 1001), Fraction(240000, 1001))],
    ids=["29.97", "119.88"],
)
def test_the_rate_of_a_pipe_is_taken_as_it_is_meant(
    run: Run, tmp_path: Path, rate: Fraction, doubled: Fraction
) -> None:
    """As with a file, 29.97 means 30000/1001. FFmpeg's guess of a high rate would be a round number."""
    with standard_input(write_y4m(tmp_path / "in.y4m", moving(3), rate)):
        assert run("-", "out.mp4", *BICUBIC)[0] == 0
    with av.open(tmp_path / "out.mp4") as container:
        assert container.streams.video[0].average_rate == doubled


# --- kills

INPUT = 26
"""Number of frames: nine windows, one in each segment."""


SLOW = """
import signal, threading
from stvsr import upscale as command

go, made, left = threading.Event(), command.Upscaler.__call__, iter(range({windows}))

def stop(*_):
    go.set()
    raise KeyboardInterrupt

def call(self, *given):
    if next(left, None) is None:
        go.wait()
    return made(self, *given)

# Shells start background programs with Ctrl-C ignored; maybe these tests were started so.
signal.signal(signal.SIGINT, stop)
command.LONGEST_SEGMENT, command.Upscaler.__call__ = 1, call
command.main()
"""
"""Makes some windows and then waits, so that a signal finds it unfinished on any machine."""


@pytest.fixture
def job(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Gives arguments to upscale `in.mkv`; a segment is one window, in this process too."""
    write_clip(tmp_path / "in.mkv", moving(INPUT, 48, 64))
    monkeypatch.setattr(command, "LONGEST_SEGMENT", 1)

    def arguments(output: str) -> list[str]:
        codec = ["--codec", "h264"] if output.endswith("mkv") else []
        return [str(tmp_path / "in.mkv"), str(tmp_path / output), "--checkpoint", str(checkpoint), *codec]

    return arguments


def slow(arguments: list[str], windows: int) -> subprocess.Popen[str]:
    """Starts a job in a separate process, which waits after `windows` windows."""
    program = [sys.executable, "-c", SLOW.format(windows=windows), *arguments]
    return subprocess.Popen(program, stderr=subprocess.PIPE, text=True)


def parts(folder: Path) -> int:
    """Number of whole segments, or sixes of frames, of an unfinished job."""
    return len(list(folder.glob("0*.mkv"))) + len(list(folder.glob("frames/0*.png"))) // 6


def pictures(path: Path) -> Tensor:
    if path.is_dir():
        return torch.stack([read_png(file) for file in sorted(path.iterdir())])
    return read_clip(path)


# How many segments, or sixes of frames, are whole before each stop.
@pytest.mark.parametrize(
    ("name", "stops"), [("killed.mkv", (1, 2, 4, 6)), pytest.param("killed", (1, 3), marks=pytest.mark.slow)]
)
def test_a_job_killed_and_stopped_by_ctrl_c_gives_the_frames_of_an_undisturbed_one(
    run: Run, job: Callable[[str], list[str]], tmp_path: Path, name: str, stops: tuple[int, ...]
) -> None:
    """The last stop is Ctrl-C, which reports in a line how to continue; those before it are kills."""
    undisturbed = name.replace("killed", "undisturbed")
    status, error = run(*job(undisturbed))
    assert status == 0, error
    folder = tmp_path / f".{name}.part"
    done = 0
    for enough in stops:
        # A segment becomes whole when the next one begins.
        with slow(job(name), windows=enough + 1 - done) as process:
            wait_until(lambda: parts(folder) >= enough, process)  # noqa: B023
            process.send_signal(signal.SIGINT if enough == stops[-1] else signal.SIGKILL)
            _, error = process.communicate()
        done = parts(folder)
        assert not (tmp_path / name).exists(), "the output has its name only when it is whole"
    assert process.returncode == 130
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("stopped; run the same command again to continue")
    status, error = run(*job(name))
    assert status == 0, error
    assert "frames of an earlier run" in error
    assert torch.equal(pictures(tmp_path / name), pictures(tmp_path / undisturbed))
    assert len(pictures(tmp_path / name)) == 2 * INPUT - 1
    assert not folder.exists()


def test_nothing_is_promised_or_kept_of_what_came_through_a_pipe(tmp_path: Path) -> None:
    # A shell's background programs ignore Ctrl-C, maybe the tests and so this one.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = [
        sys.executable,
        "-c",
        f"{heard}import stvsr.upscale as u; u.main()",
        "-",
        str(tmp_path / "out.mkv"),
        *BICUBIC,
        # FFV1 is written from the first frame on; H.264's encoder first wants dozens.
        *("--codec", "ffv1"),
    ]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"YUV4MPEG2 W24 H16 F25:1 Ip C444\n" + 9 * (b"FRAME\n" + bytes(3 * 24 * 16)))
    process.stdin.flush()
    # The pipe stays open: after its first frames the command waits for more.
    wait_until((tmp_path / ".out.mkv.part" / "000000.mkv.part").is_file, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130, error.decode()
    assert error.decode().splitlines()[-1].startswith("stopped; Y4M input or output cannot be resumed: start over")
    assert list(tmp_path.iterdir()) == []


def test_unfinished_work_of_another_job_is_refused_and_overwritten_on_request(
    run: Run, job: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Upscaler.__call__

    def stopped(*arguments: str) -> tuple[int, str]:
        """Runs the command up to a Ctrl-C after two windows."""
        left = iter(range(2))

        def call(self: Upscaler, *given: Any) -> Tensor:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return made(self, *given)

        with monkeypatch.context() as patched:
            patched.setattr(Upscaler, "__call__", call)
            return run(*arguments)

    assert stopped(*job("out.mkv"))[0] == 130
    other = [*job("out.mkv"), "--crf", "30"]
    status, error = run(*other)
    assert status == 1
    assert "holds the progress of another upscaling (another crf); add --overwrite" in error
    status, error = stopped(*other, "--overwrite")
    assert status == 130, error
    assert "frames of an earlier run" not in error
    assert parts(tmp_path / ".out.mkv.part") == 1
    status, error = run(*other, "--overwrite")
    assert status == 0, error
    assert "frames of an earlier run" in error, "the same command goes on, with --overwrite too"
    assert len(read_clip(tmp_path / "out.mkv")) == 2 * INPUT - 1


def test_two_at_a_time_are_refused(run: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mkv", moving(4))
    folder = tmp_path / ".out.mkv.part"
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    (folder / "000000.mkv").write_text("theirs")
    with taken_elsewhere(folder, "upscaling"):
        for more in ([], ["--overwrite"]):
            status, error = run("in.mkv", "out.mkv", *BICUBIC, *more)
            assert status == 1
            assert "another upscaling is running there; wait for it, or choose another output" in error
            assert [(folder / name).read_text() for name in ("job.json", "000000.mkv")] == ["{}", "theirs"]
    assert run("in.mkv", "out.mkv", *BICUBIC, "--overwrite")[0] == 0
    assert len(read_clip(tmp_path / "out.mkv")) == 7


def test_an_upscaling_keeps_a_second_one_out_while_it_runs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "in.mkv", moving(4))
    fill, taken = Job._fill, []

    def filled(self: Job, expected: int | None) -> None:
        fill(self, expected)
        taken.append(is_taken(tmp_path / ".out.mkv.part"))

    monkeypatch.setattr(Job, "_fill", filled)
    assert run("in.mkv", "out.mkv", *BICUBIC)[0] == 0
    assert taken == [True]


# --- bad input


def truncated(tmp_path: Path) -> None:
    write_clip(tmp_path / "whole.mkv", moving(60))
    (tmp_path / "bad.mp4").write_bytes((tmp_path / "whole.mkv").read_bytes()[:-60_00])
    (tmp_path / "whole.mkv").unlink()


BAD_INPUTS = {
    "text": lambda folder: (folder / "bad.mp4").write_text("once upon a time\n" * 100),
    "empty": lambda folder: (folder / "bad.mp4").write_bytes(b""),
    "zeros": lambda folder: (folder / "bad.mp4").write_bytes(bytes(10_000)),
    "missing": lambda folder: None,
    "truncated": truncated,
}


@pytest.mark.parametrize("make", BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path)
    before = sorted(tmp_path.iterdir())
    status, error = run("bad.mp4", "out.mp4", *BICUBIC)
    assert status == 1
    assert error.startswith("error: bad.mp4: ")
    assert len(error.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("source", ["frames", "in.mkv"])
def test_damage_at_the_end_is_found_before_the_work_of_a_network(
    run: Run, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A mended input is another input: the work done until then would be lost."""

    def work(*_: object) -> Tensor:
        raise AssertionError("this would have taken hours")

    monkeypatch.setattr(Upscaler, "__call__", work)
    frames = moving(20)
    write_frames(tmp_path / "frames", torch.stack(frames))
    last = tmp_path / "frames" / "00000020.png"
    last.write_bytes(last.read_bytes()[:-40])
    with av.open(tmp_path / "in.mkv", "w") as container:
        video = container.add_stream("mpeg2video", rate=25)
        video.height, video.width = frames[0].shape[1:]
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).numpy(), format="rgb24")))
        (packet,) = video.encode()
        last_packet = bytes(packet)
        container.mux(packet)
    content = (tmp_path / "in.mkv").read_bytes()
    at = content.index(last_packet) + len(last_packet) // 2
    (tmp_path / "in.mkv").write_bytes(
        content[:at] + bytes(each ^ 0x5A for each in content[at : at + 12]) + content[at + 12 :]
    )
    before = sorted(tmp_path.iterdir())
    rate = ["--rate", "25"] if source == "frames" else []
    status, error = run(source, "out.mkv", *rate, "--checkpoint", checkpoint)
    assert status == 1
    assert error.splitlines()[-1].startswith("error: ")
    assert source in error.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_refused_is_refused_before_all_frames_are_read(
    run: Run, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "in.mkv", moving(4))

    def read(*_: object) -> None:
        raise AssertionError("of a film this takes minutes")

    monkeypatch.setattr(VideoFile, "read", read)
    (tmp_path / ".out.mkv.part").mkdir()
    (tmp_path / ".out.mkv.part" / "job.json").write_text("{}")
    (tmp_path / ".out.mkv.part" / "000000.mkv").touch()
    status, error = run("in.mkv", "out.mkv", "--checkpoint", checkpoint)
    assert (status, "holds the progress of another upscaling" in error) == (1, True)
    status, error = run("in.mkv", "small.mkv", "--checkpoint", checkpoint, "--memory", "0.01")
    assert (status, "--memory 0.01, but frames of 24x16 need " in error) == (1, True)


def test_a_job_that_is_stopped_before_its_work_leaves_nothing(
    run: Run, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise another command for the same output would be refused."""
    write_clip(tmp_path / "in.mkv", moving(4))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoFile, "read", stopped)
    before = sorted(tmp_path.iterdir())
    status, error = run("in.mkv", "out.mkv", "--checkpoint", checkpoint)
    assert (status, error.splitlines()[-1]) == (130, "stopped before the work began; nothing is saved")
    assert sorted(tmp_path.iterdir()) == before


def test_without_standard_error_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    command.say("this will take about 9.0 hours on the CPU")


def test_a_terminal_that_is_gone_does_not_end_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may break off, or the reader of a pipe may end."""
    write_clip(tmp_path / "in.mkv", moving(9))
    reader, writer = os.pipe()
    os.close(reader)
    # Line-buffered, like Python's own.
    gone = os.fdopen(writer, "w", buffering=1)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", gone)
        status, _ = run("in.mkv", "out.mkv", "--codec", "ffv1", *BICUBIC)
    with pytest.raises(BrokenPipeError):
        gone.close()
    assert status == 0
    assert len(read_clip(tmp_path / "out.mkv")) == 17


def test_standard_input_that_is_closed_is_told_in_a_line(tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m stvsr.upscale - out.mkv --method bicubic <&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False, cwd=tmp_path, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: standard input: not Y4M, or empty")


BAD_COMMANDS = {
    "two-networks": (["--method", "bicubic", "--checkpoint", "a.ckpt"], "not allowed with argument --method"),
    "missing-checkpoint": (["--checkpoint", "gone.ckpt"], "gone.ckpt: no such file"),
    "unknown-method": (["--method", "magic"], "invalid choice: 'magic'"),
    "unknown-option": ([*BICUBIC, "--magic"], "unrecognized arguments: --magic; see stvsr-upscale --help"),
    "unknown-extension": ([*BICUBIC, "out.xyz"], "out.xyz: unknown extension '.xyz'; expected .mp4"),
    "no-folder": ([*BICUBIC, "gone/out.mp4"], "the folder gone does not exist"),
    "taken": ([*BICUBIC, "taken.mp4"], "taken.mp4: already exists; choose another name, or add --overwrite"),
    "dangling": ([*BICUBIC, "dangling.mp4"], "dangling.mp4: already exists"),
    "pipe": ([*BICUBIC, "pipe", "--overwrite"], "pipe: is a device or a pipe; choose a file"),
    "itself": ([*BICUBIC, "in.mkv"], "in.mkv: already exists"),
    "itself-overwritten": ([*BICUBIC, "in.mkv", "--overwrite"], "in.mkv: is the input, or contains it"),
    "mount": ([*BICUBIC, "/proc"], "/proc: is a mount point, which cannot be replaced"),
    "too-much-memory": ([*BICUBIC, "--memory", "1e400"], "argument --memory: 1e400 is too large"),
    "endless-memory": ([*BICUBIC, "--memory", "inf"], "argument --memory: 'inf' is not a number"),
    "no-memory": ([*BICUBIC, "--memory", "0"], "argument --memory: 0 is not positive"),
    "no-name": ([*BICUBIC, "."], ".: not a file name; expected a file"),
    "its-own-folder": ([*BICUBIC, "{folder}", "--overwrite"], "contains it; choose another output"),
    "codec": ([*BICUBIC, "out.webm", "--codec", "h264"], "--codec h264 is not supported in .webm"),
    "codec-of-frames": ([*BICUBIC, "frames", "--crf", "3"], "--crf: frames is not compressed"),
    "scale": ([*BICUBIC, "--scale", "3"], "argument --scale: invalid choice: 3 (choose from 4, 2)"),
    "both": ([*BICUBIC, "--slow-motion", "--no-interpolate"], "not allowed with argument --slow-motion"),
    "rate-of-a-file": ([*BICUBIC, "--rate", "25"], "in.mkv has its own frame rate; omit it"),
    "start": ([*BICUBIC, "--start", "0:10"], "no frame in the requested part (the video lasts 0.32 s)"),
    "endless-start": ([*BICUBIC, "--start", "1e400"], "argument --start: 1e400 is too large"),
    "endless-minutes": ([*BICUBIC, "--start", "1e308:0"], "argument --start: 1e308 is too large"),
    "endless-rate": ([*BICUBIC, "--rate", "1e400"], "argument --rate: 1e400 is too large"),
    "high-rate": ([*BICUBIC, "--rate", "1e9"], "argument --rate: 1e9 frames per second; expected 1/100 to 1000"),
    "low-rate": ([*BICUBIC, "--rate", "1e-9"], "argument --rate: 1e-9 frames per second; expected 1/100 to 1000"),
    "no-rate": ([*BICUBIC, "--rate", "0"], "argument --rate: 0 is not positive"),
    "no-time": ([*BICUBIC, "--start", "soon"], "argument --start: 'soon' is not a number"),
    "negative": ([*BICUBIC, "--duration", "-1"], "argument --duration: -1 is negative"),
    "device": ([*BICUBIC, "--device", "abacus"], "abacus: not usable here"),
    "memory": ([*BICUBIC, "--memory", "0.01"], "--memory 0.01, but frames of 24x16 need "),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_a_wrong_command_ends_in_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, arguments: list[str], says: str
) -> None:
    write_clip(tmp_path / "in.mkv", moving(8))
    (tmp_path / "taken.mp4").write_text("precious")
    (tmp_path / "dangling.mp4").symlink_to("gone.mp4")
    os.mkfifo(tmp_path / "pipe")

    def everything() -> dict[str, bytes | int]:
        return {path.name: path.read_bytes() if path.is_file() else path.lstat().st_mode for path in tmp_path.iterdir()}

    before = everything()
    named = len(arguments) > 2 and not arguments[2].startswith("-")
    arguments = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    order = ["in.mkv", arguments[2], *arguments[:2], *arguments[3:]] if named else ["in.mkv", "out.mp4", *arguments]
    status, error = run(*order)
    assert status in (1, 2)
    messages = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, error
    assert says in messages[0]
    assert "Traceback" not in error
    assert everything() == before


def test_an_input_of_links_in_a_circle_is_told_in_a_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    status, error = run("circle.mp4", "out.mp4", *BICUBIC)
    assert (status, error.count("\n")) == (1, 1)
    assert error.startswith("error: circle.mp4: no such file")


def test_a_folder_without_a_rate_and_a_read_only_folder_are_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    write_png(tmp_path / "frames" / "1.png", moving(1)[0])
    status, error = run("frames", "out.mp4", *BICUBIC)
    assert (status, error) == (
        1,
        "error: frames: a folder of frames has no frame rate; add --rate, for example --rate 24000/1001\n",
    )
    # /proc takes no files, even from root.
    status, error = run("frames", "/proc/out.mp4", "--rate", "25", *BICUBIC)
    assert status == 1
    assert error.splitlines()[-1].startswith("error: /proc/")


def test_a_name_that_its_folder_cannot_have_is_told_as_it_was_given(run: Run, tmp_path: Path) -> None:
    """Users do not know the longer name of the hidden folder."""
    write_clip(tmp_path / "in.mkv", moving(2))
    name = "y" * 251 + ".mkv"
    status, error = run("in.mkv", name, *BICUBIC)
    assert status == 1
    assert error.splitlines()[-1] == (f"error: {name}: the name is too long; choose one of at most 249 bytes")


def test_a_search_for_what_fits_into_the_memory_is_said_where_it_takes_time(
    run: Run, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "in.mkv", moving(2))
    network = ("--checkpoint", str(checkpoint), "--device", "cpu")
    assert "finding tiles" not in run("in.mkv", "small.mkv", *network)[1]
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 16)
    status, error = run("in.mkv", "large.mkv", *network)
    assert status == 0
    assert "finding tiles that fit into memory" in error


def test_an_input_that_is_changed_meanwhile_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sound is copied only after all frames are made."""
    write_clip(tmp_path / "in.mkv", moving(4))
    fill = Job._fill

    def change(self: Job, expected: int | None) -> None:
        fill(self, expected)
        write_clip(tmp_path / "new.mkv", moving(5))
        (tmp_path / "new.mkv").replace(tmp_path / "in.mkv")

    assert "was changed" not in run("in.mkv", "first.mkv", *BICUBIC)[1]
    monkeypatch.setattr(Job, "_fill", change)
    status, error = run("in.mkv", "second.mkv", *BICUBIC)
    assert status == 0
    assert "warning: in.mkv was changed during upscaling: frames" in error


def test_frames_too_large_for_the_codec_are_said_before_any_work(run: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mkv", moving(2, height=8, width=4104))
    status, error = run("in.mkv", "out.mp4", *BICUBIC)
    assert (status, error.splitlines()) == (
        1,
        [
            "error: frames of 16416x32; h264 supports at most 16384x16384: choose --codec vp9, a smaller "
            "--scale, or a folder of PNG frames"
        ],
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_an_output_is_replaced_on_request(run: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mkv", moving(4))
    (tmp_path / "out.mkv").write_text("old")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "00000099.png").write_text("old")
    for name in ("out.mkv", "frames"):
        status, error = run("in.mkv", name, *BICUBIC, "--overwrite")
        assert status == 0, error
    assert len(read_clip(tmp_path / "out.mkv")) == 7
    assert len(list((tmp_path / "frames").iterdir())) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "in.mkv", "out.mkv"]


def test_only_a_folder_of_frames_is_replaced(run: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mkv", moving(4))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("precious")
    status, error = run("in.mkv", "folder", *BICUBIC, "--overwrite")
    assert (status, (tmp_path / "folder" / "letter.txt").read_text()) == (1, "precious")
    assert "holds letter.txt; only a folder of PNG frames is replaced" in error
    (tmp_path / "file").write_text("old")
    status, error = run("in.mkv", "file", *BICUBIC, "--overwrite")
    assert status == 0, error
    assert len(list((tmp_path / "file").iterdir())) == 7


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "in.mkv", moving(4))
    fill = Job._fill

    def take(self: Job, expected: int | None) -> None:
        fill(self, expected)
        (tmp_path / "out.mkv").write_text("precious")

    monkeypatch.setattr(Job, "_fill", take)
    status, error = run("in.mkv", "out.mkv", *BICUBIC)
    assert (status, (tmp_path / "out.mkv").read_text()) == (1, "precious")
    assert "out.mkv: already exists" in error.splitlines()[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if (
        os.geteuid()
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small disk can be mounted by root alone")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "frames", "out.y4m"])
def test_a_disk_that_fills_up_ends_in_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, small_disk: Path, name: str
) -> None:
    rng = np.random.default_rng(0)
    noise = [torch.from_numpy(rng.integers(0, 256, (3, 64, 96), dtype=np.uint8)) for _ in range(30)]
    write_clip(tmp_path / "in.mkv", noise)
    status, error = run("in.mkv", small_disk / name, *BICUBIC, "--no-interpolate")
    assert status == 1
    last = error.splitlines()[-1]
    assert last.startswith(f"error: {small_disk}")
    assert "No space left on device" in last
    assert "Traceback" not in error
    assert list(small_disk.iterdir()) == []


def test_an_input_that_vanishes_ends_in_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are read by then, but its sound is not yet copied."""
    write_clip(tmp_path / "in.mkv", moving(8))
    finish = Job._fill

    def vanish(self: Job, expected: int | None) -> None:
        finish(self, expected)
        (tmp_path / "in.mkv").unlink()

    monkeypatch.setattr(Job, "_fill", vanish)
    status, error = run("in.mkv", "out.mkv", *BICUBIC)
    assert status == 1
    last = error.splitlines()[-1]
    assert "in.mkv: No such file or directory" in last
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_long_work_is_kept_when_something_fails_and_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "in.mkv", moving(8))
    fill = Job._fill

    def fail(self: Job, expected: int | None) -> None:
        fill(self, expected)
        self.sink.write(16, 15, torch.zeros(3, 64, 96, dtype=torch.uint8))  # the first segment is whole now
        raise OSError(28, "No space left on device", "somewhere")

    with monkeypatch.context() as patched:
        patched.setattr(Job, "_fill", fail)
        patched.setattr(delivery, "WORTH_KEEPING", 0.0)
        failures = [run("in.mkv", "out.mkv", *BICUBIC)]
        # A run that resumes it and fails at once keeps it too.
        patched.setattr(delivery, "WORTH_KEEPING", 60.0)
        failures.append(run("in.mkv", "out.mkv", *BICUBIC))
    for status, error in failures:
        assert status == 1
        assert "work so far is kept in .out.mkv.part: run the same command again to continue" in error.splitlines()[-1]
    assert (tmp_path / ".out.mkv.part").is_dir()
    status, error = run("in.mkv", "out.mkv", *BICUBIC)
    assert status == 0, error
    assert not (tmp_path / ".out.mkv.part").exists()


def test_of_a_file_that_cannot_be_read_back_the_parts_are_kept_and_go_into_another_kind_of_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part of it may get the output's name: it would be taken for a whole video."""
    write_clip(tmp_path / "in.mkv", moving(8))
    monkeypatch.setattr(command, "check_form", lambda *_: None)
    monkeypatch.setattr(delivery, "WORTH_KEEPING", 0.0)
    options = ("--codec", "vp9", "--pixel-format", "yuv440p", *BICUBIC)
    status, error = run("in.mkv", "out.mp4", *options)
    assert status == 1
    assert error.splitlines()[-1] == (
        "error: only 0 of 15 frames can be read from the finished .mp4 file; choose another --pixel-format, --codec or "
        "container, preferably .mkv; work so far is kept in .out.mp4.part: rename it to .out.mkv.part and run "
        "the same command with out.mkv to continue"
    )
    assert not (tmp_path / "out.mp4").exists()
    (tmp_path / ".out.mp4.part").rename(tmp_path / ".out.mkv.part")
    status, error = run("in.mkv", "out.mkv", *options)
    assert (status, "resuming" in error) == (0, False), error
    assert len(read_clip(tmp_path / "out.mkv")) == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_segments_of_another_length_are_not_taken_for_those_of_this_job(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a segment's number tells which windows it holds; once, 153 of 249 frames came out, with exit status 0."""
    write_clip(tmp_path / "in.mkv", moving(20))
    finish = SegmentedVideo.finish

    def killed(self: SegmentedVideo, count: int) -> None:
        self._close()
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "LONGEST_SEGMENT", 2)
    monkeypatch.setattr(SegmentedVideo, "finish", killed)
    assert run("in.mkv", "out.mkv", *BICUBIC)[0] == 130
    sorted((tmp_path / ".out.mkv.part").glob("0*.mkv"))[-1].unlink()
    monkeypatch.setattr(SegmentedVideo, "finish", finish)
    monkeypatch.setattr(command, "LONGEST_SEGMENT", 4)
    status, error = run("in.mkv", "out.mkv", *BICUBIC)
    assert status == 1
    last = error.splitlines()[-1]
    assert re.fullmatch(
        r"error: the segments hold \d+ of 39 frames; start over; work so far is .*\.part: remove it first", last
    )
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(OSError(28, "No space left on device", "x"), 1), (KeyboardInterrupt(), 130)],
    ids=["full-disk", "ctrl-c"],
)
def test_nothing_of_a_y4m_file_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, expected: int
) -> None:
    write_clip(tmp_path / "in.mkv", moving(8))

    def fail(self: Job, expected: int | None) -> None:
        raise failure

    monkeypatch.setattr(Job, "_fill", fail)
    monkeypatch.setattr(delivery, "WORTH_KEEPING", 0.0)
    status, error = run("in.mkv", "out.y4m", *BICUBIC)
    assert status == expected
    assert "again to continue" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_job_belongs_to_its_device_and_no_two_pipes_are_alike(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", moving(2))
    arguments = parser().parse_args([str(source), "out.mkv", *BICUBIC])
    piped = parser().parse_args(["-", "out.mkv", *BICUBIC])
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert command.identity(arguments, cpu) == command.identity(arguments, cpu)
    assert command.identity(arguments, cpu) != command.identity(arguments, cuda)
    assert command.identity(piped, cpu) != command.identity(piped, cpu)


@pytest.mark.parametrize("file", ["upscale.py", "checkpoint.py", "video/muxing.py"])
def test_a_job_belongs_to_the_code_that_divides_it_into_segments_and_joins_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Resumed with segments of another length, it would take missing frames for done."""
    source = write_clip(tmp_path / "in.mkv", moving(2))
    arguments = parser().parse_args([str(source), "out.mkv", *BICUBIC])
    code_alone = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(Path(command.__file__).parent, tmp_path / "stvsr", ignore=code_alone)
    monkeypatch.setattr("stvsr.unfinished.PACKAGE", tmp_path / "stvsr")
    before = command.identity(arguments, torch.device("cpu"))
    with (tmp_path / "stvsr" / file).open("a") as code:
        code.write("LONGEST_SEGMENT = 8\n")
    after = command.identity(arguments, torch.device("cpu"))
    assert {key for key, value in after.items() if value != before[key]} == {"code"}


@pytest.mark.parametrize(("library", "name"), [(torch, "torch"), (av, "PyAV")], ids=["torch", "PyAV"])
def test_a_job_is_not_continued_with_another_version_of_a_library(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Any, name: str
) -> None:
    """A joined file keeps the encoder settings of its first segment only."""
    source = write_clip(tmp_path / "in.mkv", moving(2))
    arguments = parser().parse_args([str(source), str(tmp_path / "out.mkv"), *BICUBIC])
    known = command.identity(arguments, torch.device("cpu"))
    (tmp_path / ".out.mkv.part").mkdir()
    (tmp_path / ".out.mkv.part" / "job.json").write_text(json.dumps(known))
    (tmp_path / ".out.mkv.part" / "000000.mkv").touch()
    monkeypatch.setattr(library, "__version__", "99.1")
    status, error = run(source, tmp_path / "out.mkv", *BICUBIC)
    assert (status, f"holds the progress of another upscaling (another version of {name}); add" in error) == (1, True)


def test_a_job_belongs_to_its_frames_weights_and_code_but_may_be_given_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names alone do not decide. After memory has run out, the same command continues with --memory."""
    source, weights, folder = tmp_path / "in.mkv", tmp_path / "a.ckpt", tmp_path / "frames"
    write_clip(source, moving(2))
    write_frames(folder, torch.stack(moving(2)))
    weights.write_bytes(b"one")

    def known(path: Path, *more: str) -> dict[str, Any]:
        line = [str(path), "out.mkv", "--checkpoint", str(weights), *more]
        return command.identity(parser().parse_args(line), torch.device("cpu"))

    before = [known(path) for path in (source, folder)]
    assert [known(path, "--memory", "1") for path in (source, folder)] == before
    times = weights.stat()
    weights.write_bytes(b"two")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert {key for key, value in known(source).items() if value != before[0][key]} == {"checkpoint"}
    weights.write_bytes(b"one")
    assert known(source) == before[0]
    with monkeypatch.context() as updated:
        updated.setattr("stvsr.unfinished.PACKAGE", tmp_path)
        assert {key for key, value in known(source).items() if value != before[0][key]} == {"code"}
    parts = tmp_path / "parts.m3u8"
    parts.write_text("#EXTM3U\n#EXTINF:1,\nin.mkv\n#EXT-X-ENDLIST\n")
    before, inputs = [*before, known(parts)], (source, folder, parts)
    write_clip(source, moving(3))
    write_png(folder / "00000002.png", moving(1, seed=1)[0])
    for path, old in zip(inputs, before, strict=True):
        assert {key for key, value in known(path).items() if value != old[key]} == {"input"}


def test_no_thread_of_ffmpeg_calls_into_python(run: Run, tmp_path: Path) -> None:
    """One that did waited for the GIL of the thread that closed its decoder, which waited for it: a deadlock."""
    av.logging.set_level(av.logging.PANIC)
    run("gone.mkv", "out.mkv", *BICUBIC)
    assert av.logging.get_level() is None


def test_help_reads_like_a_page(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stvsr-upscale", "--help"])
    with pytest.raises(SystemExit):
        command.main()
    page = capsys.readouterr().out
    for word in ("--checkpoint", "--slow-motion", "--preview", "examples:", "yuv4mpegpipe"):
        assert word in page


def test_a_long_job_on_a_cpu_is_said_with_its_hours(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Upscaler, "is_learned", True)
    write_clip(tmp_path / "in.mkv", moving(8))
    status, error = run("in.mkv", "quick.mkv", *BICUBIC)
    assert "hours on the CPU" not in error
    monkeypatch.setattr("stvsr.video.job.SLOW", 0.0)
    status, error = run("in.mkv", "out.mkv", *BICUBIC)
    assert status == 0
    assert "hours on the CPU; a GPU should be much faster (to try first: --duration 0.1, or --method bicubic)" in error


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """60 seconds take at most 5 % more than 10 seconds of the same video."""
    program = "import resource, stvsr.upscale as u\nu.main()\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    taken = []
    scene = moving(250, 90, 160)
    for seconds in (10, 60):
        path = write_clip(tmp_path / f"{seconds}.mkv", scene * (seconds // 10))
        arguments = [str(path), str(tmp_path / f"{seconds}.mp4"), *BICUBIC]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        taken.append(int(done.stdout))
    assert taken[1] <= 1.05 * taken[0], f"{taken[0] / 1024:.0f} and {taken[1] / 1024:.0f} MiB"


def test_work_that_was_begun_on_a_gpu_is_not_given_up_where_that_is_busy(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` would choose the CPU, and the advice for another device is to start over."""
    write_clip(tmp_path / "in.mkv", moving(2))
    folder = tmp_path / ".out.mkv.part"
    folder.mkdir()
    (folder / "job.json").write_text('{"device": "cuda:99"}')
    (folder / "000000.mkv").touch()
    arguments = ["in.mkv", "out.mkv", "--method", "bicubic"]
    # Also with --overwrite: the same command may have begun these hours of work with it.
    for overwrite in ([], ["--overwrite"]):
        with monkeypatch.context() as patch:
            patch.setattr(command, "identity", lambda arguments, device: {"device": str(device)})
            status, error = run(*arguments, *overwrite)
        assert status == 1
        assert "out.mkv: was begun on cuda:99 (device=cuda:99: not usable here" in error
        assert "wait until it is available, or start over with --device cpu --overwrite" in error
    assert run(*arguments, "--device", "cpu")[0] == 1
    # Discarded work does not decide where the new work runs.
    status, error = run(*arguments, "--overwrite")
    assert status == 0
    assert "held the progress of another upscaling (another " in error


def test_a_folder_without_work_is_nobodys(run: Run, tmp_path: Path) -> None:
    """A terminal closed in the first seconds leaves one; the device it names decides nothing."""
    write_clip(tmp_path / "in.mkv", moving(2))
    (folder := tmp_path / ".out.mkv.part").mkdir()
    (folder / "job.json").write_text('{"device": "cuda:99"}')
    status, error = run("in.mkv", "out.mkv", "--method", "bicubic")
    assert (status, "discarded" in error) == (0, False)
