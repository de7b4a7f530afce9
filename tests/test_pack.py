"""The pack command: its messages, how it resumes after a kill, and how it handles damaged data and disks."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from conftest import is_taken, taken_elsewhere, write_frames, write_vimeo
from stvsr import pack
from stvsr.data.clip import Footage
from stvsr.data.packed import CLIPS, INDEX, PackedClips
from stvsr.data.vimeo90k import Vimeo90K, motion_list, training_clips

NAMES = [f"00001/{number:04d}" for number in range(1, 13)]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command on `vimeo`, to `v.pack`; gives its exit status, standard output and standard error."""
    write_vimeo(tmp_path / "vimeo", NAMES)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stvsr.pack", *COMMAND, *arguments])
        try:
            pack.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capfd.readouterr()

    return call


COMMAND = ["data=vimeo90k", "data.root=vimeo", "output=v.pack", "workers=0", "output_dir=log"]


def check_whole(folder: Path) -> None:
    """Asserts that the pack has every clip and that nothing is left beside it."""
    source, made = training_clips(root=folder / "vimeo"), PackedClips(folder / "v.pack")
    assert len(made) == len(source) == len(NAMES)
    for index in range(len(source)):
        rng = np.random.default_rng(0)
        assert torch.equal(made.read(index, rng).frames, source.read(index, rng).frames)
    assert sorted(path.name for path in made.folder.iterdir()) == [CLIPS, INDEX]
    assert not (folder / ".v.pack.part").exists()


def last_line(error: str) -> str:
    """The line after the progress bars."""
    return error.replace("\r", "\n").strip().splitlines()[-1]


def stop(*_: object) -> None:
    """Raises what Ctrl-C raises."""
    raise KeyboardInterrupt


def stop_at(monkeypatch: pytest.MonkeyPatch, clip: int) -> list[int]:
    """Raises Ctrl-C at a clip; gives a list that fills with the clips read."""
    read, seen = Vimeo90K.read, []

    def watched(self: Vimeo90K, index: int, rng: np.random.Generator) -> Footage:
        if index == clip:
            raise KeyboardInterrupt
        seen.append(index)
        return read(self, index, rng)

    monkeypatch.setattr(Vimeo90K, "read", watched)
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_packs_all_clips_and_verifies_when_started_again(run: Run, tmp_path: Path, workers: int) -> None:
    status, output, error = run(f"workers={workers}")
    assert status == 0, error
    assert output.splitlines()[0].startswith("12 clips of 64x48: 0.0 GB, 0.0 GB left to write; free ")
    assert output.splitlines()[1:] == ["v.pack: 12 of 12 clips, verified"]
    assert "packing: 100%" in error
    assert "verifying: 100%" in error
    check_whole(tmp_path)
    before = (tmp_path / "v.pack" / CLIPS).stat().st_mtime_ns
    status, output, error = run(f"workers={workers}")
    assert (status, output) == (0, "v.pack: 12 of 12 clips, verified\n")
    assert "packing" not in error
    assert (tmp_path / "v.pack" / CLIPS).stat().st_mtime_ns == before


KILLED = """
import os, signal
from stvsr import pack
from stvsr.data.vimeo90k import Vimeo90K
read = Vimeo90K.read
def deadly(self, index, rng):
    if index == 5:
        os.kill(os.getppid() if {workers} else os.getpid(), signal.SIGKILL)
    return read(self, index, rng)
Vimeo90K.read = deadly
pack.main()
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_packing_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    script = KILLED.format(workers=workers)
    killed = subprocess.run(
        [sys.executable, "-c", script, *COMMAND, f"workers={workers}"], cwd=tmp_path, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "v.pack").exists()
    done = (tmp_path / ".v.pack.part" / "done.txt").read_text().splitlines()
    assert 0 < len(done) <= 5
    # A kill may come in the middle of a line.
    with (tmp_path / ".v.pack.part" / "done.txt").open("a") as record:
        record.write("11 12")
    seen = stop_at(monkeypatch, -1)
    status, _, error = run()
    assert status == 0, error
    # The first clip is read for its size, of the others only those not yet packed.
    assert seen == [0, *range(len(done), 12)]
    monkeypatch.undo()
    check_whole(tmp_path)


def test_an_interrupted_packing_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        status, _, error = run()
    assert status == 130
    assert last_line(error) == "stopped; run the same command again to continue"
    assert not (tmp_path / "v.pack").exists()
    # The folder may be given by another path.
    status, _, error = run(f"data.root={tmp_path / 'vimeo'}")
    assert status == 0, error
    check_whole(tmp_path)


@pytest.mark.parametrize("left", [bytes(8), b"7 ", b"7 x", b"\xff 1"])
def test_lines_that_a_power_cut_damaged_do_not_count(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        run()
    with (tmp_path / ".v.pack.part" / "done.txt").open("ab") as record:
        record.write(left + b"\n")
    status, _, error = run()
    assert status == 0, error
    check_whole(tmp_path)


def test_a_record_that_a_kill_left_of_a_finished_pack_does_not_count(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pack may have been removed since."""
    with monkeypatch.context() as patch:
        patch.setattr("stvsr.pack.Packing.finish", stop)
        run()
    assert (tmp_path / ".v.pack.part" / "done.txt").is_file()
    shutil.rmtree(tmp_path / "v.pack")
    status, _, error = run()
    assert status == 0, error
    check_whole(tmp_path)


def test_a_damaged_clip_is_left_out_with_a_word(run: Run, tmp_path: Path, configure: Callable[..., DictConfig]) -> None:
    (tmp_path / "vimeo" / "sequences" / NAMES[3] / "im2.png").write_bytes(b"no picture")
    status, output, error = run("workers=2")
    assert status == 0, error
    assert f"left out: {NAMES[3]}: vimeo/sequences/{NAMES[3]}/im2.png: not a PNG" in error
    assert "v.pack: 11 of 12 clips, verified" in output
    assert f"1 damaged, left out: {NAMES[3]}; training skips and names them" in output
    # Training on the pack, by its config, gets the same batches as on the files.
    for motion in ("slow", "medium", "fast"):
        names = motion_list(motion)
        for name in {names[i * len(names) // 16] for i in range(16)}:
            (tmp_path / "vimeo" / "sequences" / name).mkdir(parents=True, exist_ok=True)
    batches = []
    for data in (["data=vimeo90k"], ["data=vimeo90k_packed", "data.pack=v.pack"]):
        config = configure("train", *data, "data.root=vimeo", "loader.crop=8", "loader.batch_size=4")
        module = instantiate(config.loader)
        module.setup("fit")
        module.trainer = SimpleNamespace(
            max_steps=6,
            accumulate_grad_batches=1,
            limit_train_batches=1.0,
            global_step=0,
            global_rank=0,
            world_size=1,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        batches.append(list(module.train_dataloader()))
    for one, other in zip(*batches, strict=True):
        assert one.names == other.names
        assert len(one.skipped) == len(other.skipped)
        assert torch.equal(one.lr, other.lr)
        assert torch.equal(one.hr, other.hr)
    assert any(batch.skipped for batch in batches[1])


def test_a_damaged_clip_that_was_replaced_is_packed_when_it_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = tmp_path / "vimeo" / "sequences" / NAMES[3] / "im2.png"
    content = frame.read_bytes()
    frame.write_bytes(content[:100])
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        assert run()[0] == 130
    frame.write_bytes(content)
    assert run()[0] == 0
    check_whole(tmp_path)


def test_a_clip_of_another_size_is_named_in_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A worker's error and the loader are in a reference cycle. Once the garbage collector gets it, the loader cannot
    # tell its workers to end and waits this long for each, by default five seconds.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    folder = tmp_path / "vimeo" / "sequences" / NAMES[4]
    shutil.move(folder, tmp_path / "aside")
    write_frames(folder, torch.zeros(7, 3, 32, 32, dtype=torch.uint8), name="im{}.png")
    for workers in (0, 2):
        status, _, error = run(f"workers={workers}")
        assert status == 1
        assert last_line(error).startswith(f"error: clip {NAMES[4]}: 7 frames of 32x32; expected 7 of 64x48")
        assert "Traceback" not in error
        assert not (tmp_path / "v.pack").exists()
    gc.collect()
    shutil.rmtree(folder)
    shutil.move(tmp_path / "aside", folder)
    assert run()[0] == 0
    check_whole(tmp_path)


def test_an_archive_that_is_gone_ends_the_packing(run: Run, tmp_path: Path) -> None:
    for name in NAMES[2:]:
        shutil.rmtree(tmp_path / "vimeo" / "sequences" / name)
        (tmp_path / "vimeo" / "sequences" / name).mkdir()
    status, _, error = run()
    assert status == 1
    assert last_line(error).startswith("error: 10 damaged clips in a row, the last: vimeo/sequences/00001/0012/im1.png")
    assert not (tmp_path / "v.pack").exists()


def flip_a_byte(file: Path, place: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ 0xFF]))


CLIP = 7 * 3 * 48 * 64


def test_what_the_disk_did_not_keep_is_packed_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        run()
    flip_a_byte(tmp_path / ".v.pack.part" / "whole" / CLIPS, 2 * CLIP + 5)
    status, _, error = run()
    assert status == 1
    assert last_line(error).startswith(
        f"error: v.pack: 1 of the clips were read back differently than written, the first {NAMES[2]}"
    )
    assert not (tmp_path / "v.pack").exists()
    assert run()[0] == 0
    check_whole(tmp_path)


def test_damage_in_a_finished_pack_is_named(run: Run, tmp_path: Path) -> None:
    assert run()[0] == 0
    flip_a_byte(tmp_path / "v.pack" / CLIPS, 4 * CLIP)
    status, _, error = run()
    assert status == 1
    assert last_line(error).startswith(f"error: v.pack: 1 of the clips are damaged in the pack, the first {NAMES[4]};")
    os.truncate(tmp_path / "v.pack" / CLIPS, 3 * CLIP)
    status, _, error = run()
    assert status == 1
    assert last_line(error).startswith(f"error: v.pack/clips.u8: {3 * CLIP} bytes; expected {12 * CLIP}")


def test_another_list_is_refused_before_and_after(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "vimeo" / "sep_trainlist.txt"
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        run()
    listed.write_text("\n".join(NAMES[:-1]))
    status, _, error = run()
    assert status == 1
    assert ".v.pack.part: holds the progress of another packing (another list)" in last_line(error)
    listed.write_text("\n".join(NAMES))
    assert run()[0] == 0
    listed.write_text("\n".join(NAMES[::-1]))
    status, _, error = run()
    assert status == 1
    assert last_line(error).startswith(
        "error: v.pack: packed from a different clip list (12 clips, expected 12; clip 1 is"
    )


def test_a_disk_that_is_too_small_is_told_before_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=12 * CLIP - 1))
    status, output, error = run()
    assert status == 1
    assert output.startswith("12 clips of 64x48: ")
    assert last_line(error).startswith("error: output=v.pack: 0.001 GB are left to write and 0.001 GB are free")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "vimeo"]


def test_what_is_packed_needs_no_room_again_and_stays_where_the_rest_has_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        run()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=7 * CLIP - 1))
    assert run()[0] == 1
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=7 * CLIP))
        seen = stop_at(patched, 99)
        assert run()[0] == 0
    assert sorted(set(seen)) == [0, *range(5, 12)], "the first tells the size of the frames"
    check_whole(tmp_path)


def test_a_file_that_cannot_be_written_is_told_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        run()
    clips = tmp_path / ".v.pack.part" / "whole" / CLIPS
    clips.unlink()
    clips.mkdir()
    status, _, error = run()
    assert status == 1
    assert last_line(error).startswith("error: .v.pack.part/whole/clips.u8: Is a directory; what is packed is kept")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["workers=-1"], "workers=-1; expected a whole number, 0 or more"),
        (["output=nowhere/v.pack"], "output=nowhere/v.pack: the folder nowhere does not exist"),
        (["output=vimeo"], "vimeo: no index.json there; expected a pack"),
        (["data.root=nowhere"], "nowhere: no sep_trainlist.txt there"),
        (["data=clips", "data.root=vimeo"], "data: only fixed, named clips can be packed; use data=vimeo90k"),
        (["outputs=v.pack"], "outputs"),
    ],
    ids=[
        "workers",
        "no-folder",
        "no-pack",
        "no-archive",
        "other-data",
        "misspelt",
    ],
)
def test_bad_input_ends_in_one_line(run: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    status, _, error = run(*arguments)
    assert status in (1, 2)
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert not (tmp_path / "v.pack").exists()


def test_two_at_a_time_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".v.pack.part").mkdir()
    with taken_elsewhere(tmp_path / ".v.pack.part", "packing"):
        status, _, error = run()
        assert status == 1
        assert last_line(error).startswith("error: .v.pack.part: another packing is running there; wait for it")
    assert run()[0] == 0
    check_whole(tmp_path)


def test_a_packing_keeps_a_second_one_out_while_it_packs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def pack(*arguments: object) -> None:
        taken.append(is_taken(tmp_path / ".v.pack.part"))
        raise KeyboardInterrupt

    monkeypatch.setattr("stvsr.pack.pack_missing", pack)
    assert run()[0] == 130
    assert taken == [True]
