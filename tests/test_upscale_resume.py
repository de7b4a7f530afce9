"""Unfinished work of `stvsr-upscale`: kept, resumed with the same frames, and never taken for that of another job."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from torch import Tensor

from conftest import (
    BICUBIC,
    Run,
    is_taken,
    moving_frames,
    once_filled,
    read_video,
    taken_elsewhere,
    wait_until,
    write_frames,
    write_video,
)
from stvsr import upscale as command
from stvsr.data.png import write_png
from stvsr.video import delivery
from stvsr.video.job import Job
from stvsr.video.options import parser
from stvsr.video.sinks import SegmentedVideo
from stvsr.video.sources import VideoFile
from stvsr.video.upscaling import Upscaler

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
def job(tmp_path: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Gives arguments to upscale `in.mkv`; a segment is one window, in this process too."""
    write_video(tmp_path / "in.mkv", moving_frames(INPUT, (48, 64)))
    monkeypatch.setattr(command, "LONGEST_SEGMENT", 1)

    def arguments(output: str) -> list[str]:
        codec = ["--codec", "h264"] if output.endswith("mkv") else []
        return [str(tmp_path / "in.mkv"), str(tmp_path / output), "--checkpoint", str(small_checkpoint), *codec]

    return arguments


def slow(arguments: list[str], windows: int) -> subprocess.Popen[str]:
    """Starts a job in a separate process, which waits after `windows` windows."""
    program = [sys.executable, "-c", SLOW.format(windows=windows), *arguments]
    return subprocess.Popen(program, stderr=subprocess.PIPE, text=True)


def parts(folder: Path) -> int:
    """Number of whole segments, or sixes of frames, of an unfinished job."""
    return len(list(folder.glob("0*.mkv"))) + len(list(folder.glob("frames/0*.png"))) // 6


# How many segments, or sixes of frames, are whole before each stop.
@pytest.mark.parametrize(
    ("name", "stops"), [("killed.mkv", (1, 2, 4, 6)), pytest.param("killed", (1, 3), marks=pytest.mark.slow)]
)
def test_a_job_killed_and_stopped_by_ctrl_c_gives_the_frames_of_an_undisturbed_one(
    run_upscale: Run, job: Callable[[str], list[str]], tmp_path: Path, name: str, stops: tuple[int, ...]
) -> None:
    """The last stop is Ctrl-C, which reports in a line how to continue; those before it are kills."""
    undisturbed = name.replace("killed", "undisturbed")
    status, error = run_upscale(*job(undisturbed))
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
    status, error = run_upscale(*job(name))
    assert status == 0, error
    assert "frames of an earlier run" in error
    assert torch.equal(read_video(tmp_path / name), read_video(tmp_path / undisturbed))
    assert len(read_video(tmp_path / name)) == 2 * INPUT - 1
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
    run_upscale: Run, job: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
            return run_upscale(*arguments)

    assert stopped(*job("out.mkv"))[0] == 130
    other = [*job("out.mkv"), "--crf", "30"]
    status, error = run_upscale(*other)
    assert status == 1
    assert "holds the progress of another upscaling (another crf); add --overwrite" in error
    status, error = stopped(*other, "--overwrite")
    assert status == 130, error
    assert "frames of an earlier run" not in error
    assert parts(tmp_path / ".out.mkv.part") == 1
    status, error = run_upscale(*other, "--overwrite")
    assert status == 0, error
    assert "frames of an earlier run" in error, "the same command goes on, with --overwrite too"
    assert len(read_video(tmp_path / "out.mkv")) == 2 * INPUT - 1


def test_a_job_that_is_stopped_before_its_work_leaves_nothing(
    run_upscale: Run, tmp_path: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise another command for the same output would be refused."""
    write_video(tmp_path / "in.mkv", moving_frames(4))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoFile, "read", stopped)
    before = sorted(tmp_path.iterdir())
    status, error = run_upscale("in.mkv", "out.mkv", "--checkpoint", small_checkpoint)
    assert (status, error.splitlines()[-1]) == (130, "stopped before the work began; nothing is saved")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_without_work_is_nobodys(run_upscale: Run, tmp_path: Path) -> None:
    """A terminal closed in the first seconds leaves one; the device it names decides nothing."""
    write_video(tmp_path / "in.mkv", moving_frames(2))
    (folder := tmp_path / ".out.mkv.part").mkdir()
    (folder / "job.json").write_text('{"device": "cuda:99"}')
    status, error = run_upscale("in.mkv", "out.mkv", *BICUBIC)
    assert (status, "discarded" in error) == (0, False)


def test_long_work_is_kept_when_something_fails_and_said(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(8))

    def fail(job: Job) -> None:
        job.sink.write(16, 15, torch.zeros(3, 64, 96, dtype=torch.uint8))  # the first segment is whole now
        raise OSError(28, "No space left on device", "somewhere")

    with monkeypatch.context() as patched:
        once_filled(patched, fail)
        patched.setattr(delivery, "WORTH_KEEPING", 0.0)
        failures = [run_upscale("in.mkv", "out.mkv", *BICUBIC)]
        # A run that resumes it and fails at once keeps it too.
        patched.setattr(delivery, "WORTH_KEEPING", 60.0)
        failures.append(run_upscale("in.mkv", "out.mkv", *BICUBIC))
    for status, error in failures:
        assert status == 1
        assert "work so far is kept in .out.mkv.part: run the same command again to continue" in error.splitlines()[-1]
    assert (tmp_path / ".out.mkv.part").is_dir()
    status, error = run_upscale("in.mkv", "out.mkv", *BICUBIC)
    assert status == 0, error
    assert not (tmp_path / ".out.mkv.part").exists()


def test_of_a_file_that_cannot_be_read_back_the_parts_are_kept_and_go_into_another_kind_of_file(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part of it may get the output's name: it would be taken for a whole video."""
    write_video(tmp_path / "in.mkv", moving_frames(8))
    monkeypatch.setattr(command, "check_form", lambda *_: None)
    monkeypatch.setattr(delivery, "WORTH_KEEPING", 0.0)
    options = ("--codec", "vp9", "--pixel-format", "yuv440p", *BICUBIC)
    status, error = run_upscale("in.mkv", "out.mp4", *options)
    assert status == 1
    assert error.splitlines()[-1] == (
        "error: only 0 of 15 frames can be read from the finished .mp4 file; choose another --pixel-format, --codec or "
        "container, preferably .mkv; work so far is kept in .out.mp4.part: rename it to .out.mkv.part and run "
        "the same command with out.mkv to continue"
    )
    assert not (tmp_path / "out.mp4").exists()
    (tmp_path / ".out.mp4.part").rename(tmp_path / ".out.mkv.part")
    status, error = run_upscale("in.mkv", "out.mkv", *options)
    assert (status, "resuming" in error) == (0, False), error
    assert len(read_video(tmp_path / "out.mkv")) == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_segments_of_another_length_are_not_taken_for_those_of_this_job(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a segment's number tells which windows it holds; once, 153 of 249 frames came out, with exit status 0."""
    write_video(tmp_path / "in.mkv", moving_frames(20))
    finish = SegmentedVideo.finish

    def killed(self: SegmentedVideo, count: int) -> None:
        self._close()
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "LONGEST_SEGMENT", 2)
    monkeypatch.setattr(SegmentedVideo, "finish", killed)
    assert run_upscale("in.mkv", "out.mkv", *BICUBIC)[0] == 130
    sorted((tmp_path / ".out.mkv.part").glob("0*.mkv"))[-1].unlink()
    monkeypatch.setattr(SegmentedVideo, "finish", finish)
    monkeypatch.setattr(command, "LONGEST_SEGMENT", 4)
    status, error = run_upscale("in.mkv", "out.mkv", *BICUBIC)
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
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, expected: int
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(8))

    def fail(self: Job, expected: int | None) -> None:
        raise failure

    monkeypatch.setattr(Job, "_fill", fail)
    monkeypatch.setattr(delivery, "WORTH_KEEPING", 0.0)
    status, error = run_upscale("in.mkv", "out.y4m", *BICUBIC)
    assert status == expected
    assert "again to continue" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_two_at_a_time_are_refused(run_upscale: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(4))
    folder = tmp_path / ".out.mkv.part"
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    (folder / "000000.mkv").write_text("theirs")
    with taken_elsewhere(folder, "upscaling"):
        for more in ([], ["--overwrite"]):
            status, error = run_upscale("in.mkv", "out.mkv", *BICUBIC, *more)
            assert status == 1
            assert "another upscaling is running there; wait for it, or choose another output" in error
            assert [(folder / name).read_text() for name in ("job.json", "000000.mkv")] == ["{}", "theirs"]
    assert run_upscale("in.mkv", "out.mkv", *BICUBIC, "--overwrite")[0] == 0
    assert len(read_video(tmp_path / "out.mkv")) == 7


def test_an_upscaling_keeps_a_second_one_out_while_it_runs(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(4))
    taken: list[bool] = []
    once_filled(monkeypatch, lambda job: taken.append(is_taken(tmp_path / ".out.mkv.part")))
    assert run_upscale("in.mkv", "out.mkv", *BICUBIC)[0] == 0
    assert taken == [True]


def test_a_job_belongs_to_its_device_and_no_two_pipes_are_alike(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", moving_frames(2))
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
    source = write_video(tmp_path / "in.mkv", moving_frames(2))
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
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Any, name: str
) -> None:
    """A joined file keeps the encoder settings of its first segment only."""
    source = write_video(tmp_path / "in.mkv", moving_frames(2))
    arguments = parser().parse_args([str(source), str(tmp_path / "out.mkv"), *BICUBIC])
    known = command.identity(arguments, torch.device("cpu"))
    (tmp_path / ".out.mkv.part").mkdir()
    (tmp_path / ".out.mkv.part" / "job.json").write_text(json.dumps(known))
    (tmp_path / ".out.mkv.part" / "000000.mkv").touch()
    monkeypatch.setattr(library, "__version__", "99.1")
    status, error = run_upscale(source, tmp_path / "out.mkv", *BICUBIC)
    assert (status, f"holds the progress of another upscaling (another version of {name}); add" in error) == (1, True)


def test_a_job_belongs_to_its_frames_weights_and_code_but_may_be_given_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names alone do not decide. After memory has run out, the same command continues with --memory."""
    source, weights, folder = tmp_path / "in.mkv", tmp_path / "a.ckpt", tmp_path / "frames"
    write_video(source, moving_frames(2))
    write_frames(folder, moving_frames(2))
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
    write_video(source, moving_frames(3))
    write_png(folder / "00000002.png", moving_frames(1, seed=1)[0])
    for path, old in zip(inputs, before, strict=True):
        assert {key for key, value in known(path).items() if value != old[key]} == {"input"}


def test_work_that_was_begun_on_a_gpu_is_not_given_up_where_that_is_busy(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` would choose the CPU, and the advice for another device is to start over."""
    write_video(tmp_path / "in.mkv", moving_frames(2))
    folder = tmp_path / ".out.mkv.part"
    folder.mkdir()
    (folder / "job.json").write_text('{"device": "cuda:99"}')
    (folder / "000000.mkv").touch()
    arguments = ["in.mkv", "out.mkv", *BICUBIC]
    # Also with --overwrite: the same command may have begun these hours of work with it.
    for overwrite in ([], ["--overwrite"]):
        with monkeypatch.context() as patch:
            patch.setattr(command, "identity", lambda arguments, device: {"device": str(device)})
            status, error = run_upscale(*arguments, *overwrite)
        assert status == 1
        assert "out.mkv: was begun on cuda:99 (device=cuda:99: not usable here" in error
        assert "wait until it is available, or start over with --device cpu --overwrite" in error
    assert run_upscale(*arguments, "--device", "cpu")[0] == 1
    # Discarded work does not decide where the new work runs.
    status, error = run_upscale(*arguments, "--overwrite")
    assert status == 0
    assert "held the progress of another upscaling (another " in error
