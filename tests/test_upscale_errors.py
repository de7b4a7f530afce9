"""What `stvsr-upscale` says when something is wrong, in one line, and that it leaves nothing and overwrites nothing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import BICUBIC, Run, moving_frames, once_filled, read_video, write_frames, write_video
from stvsr import upscale as command
from stvsr.data.png import write_png
from stvsr.video.sources import VideoFile
from stvsr.video.upscaling import Upscaler


def truncated(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mkv", moving_frames(60))
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
    run_upscale: Run, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path)
    before = sorted(tmp_path.iterdir())
    status, error = run_upscale("bad.mp4", "out.mp4", *BICUBIC)
    assert status == 1
    assert error.startswith("error: bad.mp4: ")
    assert len(error.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_input_is_one_line_also_without_a_checkpoint(run_upscale: Run) -> None:
    status, error = run_upscale("missing.mp4", "out.mp4")
    assert status == 1
    (line,) = error.splitlines()
    assert line.startswith("error: missing.mp4")


def test_an_input_of_links_in_a_circle_is_told_in_a_line(run_upscale: Run, tmp_path: Path) -> None:
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    status, error = run_upscale("circle.mp4", "out.mp4", *BICUBIC)
    assert (status, error.count("\n")) == (1, 1)
    assert error.startswith("error: circle.mp4: no such file")


def test_standard_input_that_is_closed_is_told_in_a_line(tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m stvsr.upscale - out.mkv --method bicubic <&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False, cwd=tmp_path, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: standard input: not Y4M, or empty")


@pytest.mark.parametrize("source", ["frames", "in.mkv"])
def test_damage_at_the_end_is_found_before_the_work_of_a_network(
    run_upscale: Run, tmp_path: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A mended input is another input: the work done until then would be lost."""

    def work(*_: object) -> Tensor:
        raise AssertionError("this would have taken hours")

    monkeypatch.setattr(Upscaler, "__call__", work)
    frames = moving_frames(20)
    write_frames(tmp_path / "frames", frames)
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
    status, error = run_upscale(source, "out.mkv", *rate, "--checkpoint", small_checkpoint)
    assert status == 1
    assert error.splitlines()[-1].startswith("error: ")
    assert source in error.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_refused_is_refused_before_all_frames_are_read(
    run_upscale: Run, tmp_path: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(4))

    def read(*_: object) -> None:
        raise AssertionError("of a film this takes minutes")

    monkeypatch.setattr(VideoFile, "read", read)
    (tmp_path / ".out.mkv.part").mkdir()
    (tmp_path / ".out.mkv.part" / "job.json").write_text("{}")
    (tmp_path / ".out.mkv.part" / "000000.mkv").touch()
    status, error = run_upscale("in.mkv", "out.mkv", "--checkpoint", small_checkpoint)
    assert (status, "holds the progress of another upscaling" in error) == (1, True)
    status, error = run_upscale("in.mkv", "small.mkv", "--checkpoint", small_checkpoint, "--memory", "0.01")
    assert (status, "--memory 0.01, but frames of 24x16 need " in error) == (1, True)


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
    "empty-name": ([*BICUBIC, ""], "argument output: the name is empty"),
    "extension-alone": ([*BICUBIC, ".mp4"], ".mp4: not a file name; expected a file"),
    "no-extension": ([*BICUBIC, "out."], "out.: not a file name; expected a file"),
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
    run_upscale: Run, tmp_path: Path, arguments: list[str], says: str
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(8))
    (tmp_path / "taken.mp4").write_text("precious")
    (tmp_path / "dangling.mp4").symlink_to("gone.mp4")
    os.mkfifo(tmp_path / "pipe")

    def everything() -> dict[str, bytes | int]:
        return {path.name: path.read_bytes() if path.is_file() else path.lstat().st_mode for path in tmp_path.iterdir()}

    before = everything()
    named = len(arguments) > 2 and not arguments[2].startswith("-")
    arguments = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    order = ["in.mkv", arguments[2], *arguments[:2], *arguments[3:]] if named else ["in.mkv", "out.mp4", *arguments]
    status, error = run_upscale(*order)
    assert status in (1, 2)
    messages = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, error
    assert says in messages[0]
    assert "Traceback" not in error
    assert everything() == before


def test_a_folder_without_a_rate_and_a_read_only_folder_are_said(run_upscale: Run, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    write_png(tmp_path / "frames" / "1.png", moving_frames(1)[0])
    status, error = run_upscale("frames", "out.mp4", *BICUBIC)
    assert (status, error) == (
        1,
        "error: frames: a folder of frames has no frame rate; add --rate, for example --rate 24000/1001\n",
    )
    # /proc takes no files, even from root.
    status, error = run_upscale("frames", "/proc/out.mp4", "--rate", "25", *BICUBIC)
    assert status == 1
    assert error.splitlines()[-1].startswith("error: /proc/")


def test_a_name_that_its_folder_cannot_have_is_told_as_it_was_given(run_upscale: Run, tmp_path: Path) -> None:
    """Users do not know the longer name of the hidden folder."""
    write_video(tmp_path / "in.mkv", moving_frames(2))
    name = "y" * 251 + ".mkv"
    status, error = run_upscale("in.mkv", name, *BICUBIC)
    assert status == 1
    assert error.splitlines()[-1] == (f"error: {name}: the name is too long; choose one of at most 249 bytes")


def test_frames_too_large_for_the_codec_are_said_before_any_work(run_upscale: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(2, (8, 4104)))
    status, error = run_upscale("in.mkv", "out.mp4", *BICUBIC)
    assert (status, error.splitlines()) == (
        1,
        [
            "error: frames of 16416x32; h264 supports at most 16384x16384: choose --codec vp9, a smaller "
            "--scale, or a folder of PNG frames"
        ],
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_an_output_is_replaced_on_request(run_upscale: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(4))
    (tmp_path / "out.mkv").write_text("old")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "00000099.png").write_text("old")
    for name in ("out.mkv", "frames"):
        status, error = run_upscale("in.mkv", name, *BICUBIC, "--overwrite")
        assert status == 0, error
    assert len(read_video(tmp_path / "out.mkv")) == 7
    assert len(list((tmp_path / "frames").iterdir())) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "in.mkv", "out.mkv"]


def test_only_a_folder_of_frames_is_replaced(run_upscale: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(4))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("precious")
    status, error = run_upscale("in.mkv", "folder", *BICUBIC, "--overwrite")
    assert (status, (tmp_path / "folder" / "letter.txt").read_text()) == (1, "precious")
    assert "holds letter.txt; only a folder of PNG frames is replaced" in error
    (tmp_path / "file").write_text("old")
    status, error = run_upscale("in.mkv", "file", *BICUBIC, "--overwrite")
    assert status == 0, error
    assert len(list((tmp_path / "file").iterdir())) == 7


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "in.mkv", moving_frames(4))
    once_filled(monkeypatch, lambda job: (tmp_path / "out.mkv").write_text("precious"))
    status, error = run_upscale("in.mkv", "out.mkv", *BICUBIC)
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
    run_upscale: Run, tmp_path: Path, small_disk: Path, name: str
) -> None:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, (30, 3, 64, 96), dtype=np.uint8))
    write_video(tmp_path / "in.mkv", noise)
    status, error = run_upscale("in.mkv", small_disk / name, *BICUBIC, "--no-interpolate")
    assert status == 1
    last = error.splitlines()[-1]
    assert last.startswith(f"error: {small_disk}")
    assert "No space left on device" in last
    assert "Traceback" not in error
    assert list(small_disk.iterdir()) == []


def test_an_input_that_is_changed_meanwhile_is_told(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sound is copied only after all frames are made."""
    write_video(tmp_path / "in.mkv", moving_frames(4))
    assert "was changed" not in run_upscale("in.mkv", "first.mkv", *BICUBIC)[1]
    once_filled(
        monkeypatch,
        lambda job: write_video(tmp_path / "new.mkv", moving_frames(5)).replace(tmp_path / "in.mkv"),
    )
    status, error = run_upscale("in.mkv", "second.mkv", *BICUBIC)
    assert status == 0
    assert "warning: in.mkv was changed during upscaling: frames" in error


def test_an_input_that_vanishes_ends_in_one_line(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames are read by then, but its sound is not yet copied."""
    write_video(tmp_path / "in.mkv", moving_frames(8))
    once_filled(monkeypatch, lambda job: (tmp_path / "in.mkv").unlink())
    status, error = run_upscale("in.mkv", "out.mkv", *BICUBIC)
    assert status == 1
    last = error.splitlines()[-1]
    assert "in.mkv: No such file or directory" in last
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_is_gone_does_not_end_the_work(
    run_upscale: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may break off, or the reader of a pipe may end."""
    write_video(tmp_path / "in.mkv", moving_frames(9))
    reader, writer = os.pipe()
    os.close(reader)
    # Line-buffered, like Python's own.
    gone = os.fdopen(writer, "w", buffering=1)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", gone)
        status, _ = run_upscale("in.mkv", "out.mkv", "--codec", "ffv1", *BICUBIC)
    with pytest.raises(BrokenPipeError):
        gone.close()
    assert status == 0
    assert len(read_video(tmp_path / "out.mkv")) == 17


def test_without_standard_error_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    command.say("this will take about 9.0 hours on the CPU")


def test_no_thread_of_ffmpeg_calls_into_python(run_upscale: Run, tmp_path: Path) -> None:
    """One that did waited for the GIL of the thread that closed its decoder, which waited for it: a deadlock."""
    av.logging.set_level(av.logging.PANIC)
    run_upscale("gone.mkv", "out.mkv", *BICUBIC)
    assert av.logging.get_level() is None
