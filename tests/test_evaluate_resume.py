"""The folder of an evaluation: progress resumed, results and frames kept or replaced, never those of something else."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from conftest import VID4, Evaluate, is_taken, moving_frames, write_frames
from stvsr import evaluate as evaluate_module
from stvsr.data.clip import to_float
from stvsr.data.degradation import downsample
from stvsr.data.frame_folders import FrameFolders
from stvsr.data.png import read_png, write_png
from stvsr.errors import DamagedClip, Interrupted, InvalidInput
from stvsr.evaluation import scoring
from stvsr.evaluation.job import Job
from stvsr.evaluation.metrics import frame_scores
from stvsr.evaluation.progress import Part

PEER = """
import os
import torch
from stvsr.models.bicubic_blend import BicubicBlend

class Brighter(BicubicBlend):
    def __init__(self, by):
        super().__init__()
        self.by = torch.nn.Parameter(torch.tensor(by))

    def forward(self, lr):
        return super().forward(lr) + self.by

def brighter():
    return Brighter(float(os.environ.get("PEER", "0.25")))
"""


class Own(FrameFolders):
    """A user's own class of clips."""


def stop(*arguments: object, **options: object) -> None:
    """Raises what Ctrl-C raises."""
    raise KeyboardInterrupt


KILLED = """
import os, signal
from stvsr.evaluate import main
from stvsr.evaluation.progress import Part
add, added = Part.add, []
def deadly(self, record):
    add(self, record)
    added.append(record)
    if len(added) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Part.add = deadly
main()
"""


def test_an_evaluation_that_was_killed_goes_on_with_the_same_result(
    scored: Evaluate, few: Path, small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"checkpoint='{small_checkpoint}'", "data=clips", f"data.root='{few}'"]
    whole = scored(*overrides, folder="whole")
    command = [sys.executable, "-c", KILLED, *overrides, "logger=csv", "workers=0"]
    killed = subprocess.run([*command, f"output_dir='{tmp_path}/killed'"], capture_output=True, text=True, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = tmp_path / "killed" / "progress"
    (part,) = parts.glob("part-*.jsonl")
    assert part.read_text().count("\n") == 3
    # As if the kill had come in the middle of a line.
    part.write_text(part.read_text() + '{"batch": 7, "windows": [{"posi')
    add, added = Part.add, []
    monkeypatch.setattr(Part, "add", lambda part, record: added.append(record.batch) or add(part, record))
    rest = scored(*overrides, folder="killed")
    assert added == [3, 4, 5]
    assert rest["frames"] == whole["frames"]
    assert rest["clips"] == whole["clips"]
    assert not parts.exists()


def test_progress_of_another_evaluation_is_not_mixed_in(
    scored: Evaluate, vid4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stvsr.evaluation.progress.Part.add", stop)
    data = ["method=bicubic_blend", "data=clips", f"data.root='{vid4}'"]
    with pytest.raises(Exception, match=r"stopped after 0 of 29 windows; run it again .* to continue"):
        scored(*data)
    monkeypatch.undo()
    says = r"progress of another evaluation \(another protocol\); .* or remove that folder to start over"
    with pytest.raises(InvalidInput, match=says):
        scored(*data, "protocol=released")
    scored(*data)


def test_a_stopped_evaluation_gives_way_to_another_as_its_message_says(
    scored: Evaluate, vid4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and frames that it left are not taken for a user's."""
    add, data = Part.add, ["method=bicubic_blend", "data=clips", f"data.root='{vid4}'"]

    def stop_late(part: Part, record: Any) -> None:
        if record.batch == 20:
            raise KeyboardInterrupt
        add(part, record)

    monkeypatch.setattr(Part, "add", stop_late)
    with pytest.raises(Interrupted):
        scored(*data, "save_frames=true")
    monkeypatch.undo()
    assert any((tmp_path / "out" / "pictures").iterdir())
    shutil.rmtree(tmp_path / "out" / "progress")
    assert scored(*data, "protocol=released")["frames"]
    assert not (tmp_path / "out" / "frames").exists(), "they would be taken for those of the other"


def test_other_weights_under_the_same_name_are_another_evaluation(
    configure: Callable[..., DictConfig],
    write_checkpoint: Callable[..., Path],
    few: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A training run may have continued. Another version of our code counts as another, too."""

    def identity(seed: int) -> dict[str, Any]:
        overrides = [f"checkpoint='{write_checkpoint(seed)}'", "data=clips", f"data.root='{few}'", "output_dir=out"]
        return Job(configure("evaluate", *overrides), torch.device("cpu")).progress_key()

    before = identity(0)
    assert identity(0) == before
    assert {key for key, value in identity(1).items() if value != before[key]} == {"checkpoint", "network"}
    monkeypatch.setattr("stvsr.evaluation.job.CODE", "of another version")
    assert {key for key, value in identity(0).items() if value != before[key]} == {"code"}


def test_a_method_of_ones_own_that_has_changed_is_another_one(
    scored: Evaluate, vid4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are not in its config."""
    (tmp_path / "peer.py").write_text(PEER)
    monkeypatch.syspath_prepend(tmp_path)
    data = ["method=bicubic_blend", "method._target_=peer.brighter", "data=clips", f"data.root='{vid4}'"]

    with monkeypatch.context() as stopped:
        stopped.setattr("stvsr.evaluation.progress.Part.add", stop)
        with pytest.raises(Interrupted):
            scored(*data)
    monkeypatch.setenv("PEER", "0.5")
    with pytest.raises(InvalidInput, match=r"progress of another evaluation \(another network\)"):
        scored(*data)
    monkeypatch.delenv("PEER")
    assert scored(*data)["frames"]


def test_an_evaluation_that_was_stopped_leaves_no_results_of_another(
    scored: Evaluate, vid4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old results would stand beside pictures of the new evaluation."""

    data = ["method=bicubic_blend", "data=clips", f"data.root='{vid4}'"]
    scored(*data)
    monkeypatch.setattr("stvsr.evaluation.progress.Part.add", stop)
    with pytest.raises(Interrupted):
        scored(*data, "protocol=released")
    assert not (tmp_path / "out" / "results.json").exists()


def test_an_evaluation_keeps_a_second_one_out_of_its_folder_while_it_scores(
    scored: Evaluate, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def score(*arguments: object) -> None:
        taken.append(is_taken(tmp_path / "out" / "progress"))
        raise KeyboardInterrupt

    monkeypatch.setattr("stvsr.evaluate.score", score)
    with pytest.raises(KeyboardInterrupt):
        scored("method=bicubic_blend", "data=clips", f"data.root='{few}'")
    assert taken == [True]


def test_results_are_those_of_the_weights_that_were_scored(
    scored: Evaluate, write_checkpoint: Callable[..., Path], few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training run may rewrite its checkpoint meanwhile."""
    weights = write_checkpoint(0)
    content = weights.read_bytes()

    def score(*arguments: Any) -> list[Any]:
        records = score_before(*arguments)
        weights.write_bytes(b"others")
        return records

    score_before = evaluate_module.score
    monkeypatch.setattr(evaluate_module, "score", score)
    scored(f"checkpoint='{weights}'", "data=clips", f"data.root='{few}'")
    known = json.loads((tmp_path / "out" / "results.json").read_text())["made_with"]
    assert known["checkpoint"] == hashlib.sha256(content).hexdigest()


def test_a_finished_evaluation_is_not_done_again_but_where_something_decides_otherwise(
    scored: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep that was stopped relies on this when its command is given again."""
    clip = tmp_path / "clips" / "a"
    write_frames(clip, moving_frames(7, (32, 48)))
    data = ["method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'"]
    first = scored(*data)
    results = tmp_path / "out" / "results.json"
    before = results.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("stvsr.evaluate.Progress", stop)
        assert scored(*data) == first
        assert (
            "already scored in the same way; to score and log it again, remove results.json there"
            in capsys.readouterr().out
        )
        assert results.stat().st_mtime_ns > before, "a sweep compares what has a new time"
        others = ["name=mine", "motion.fast=9", "protocol=released", "save_frames=true", "batch_size=2", "device=cpu"]
        for other in (
            *others,
            "deformable=blocked",
            "pictures=1",
            "data.test_source._target_=test_evaluate_resume.Own",
        ):
            with pytest.raises(KeyboardInterrupt):
                scored(*data, other)
        for changed in (*(tmp_path / "out" / name for name in ("report.html", "clips.csv", "frames.csv")), results):
            content = changed.read_text()
            changed.unlink()
            with pytest.raises(KeyboardInterrupt):
                scored(*data)
            changed.write_text(content)
        # Scored but not finished, as when W&B refused to log it.
        (record := tmp_path / "out" / "progress" / "part-000-000.jsonl").parent.mkdir()
        record.touch()
        with pytest.raises(KeyboardInterrupt):
            scored(*data)
        shutil.rmtree(record.parent)
        os.utime(clip / "00000001.png")
        with pytest.raises(KeyboardInterrupt):
            scored(*data)


def test_a_saved_frame_that_is_gone_is_made_again(scored: Evaluate, tmp_path: Path) -> None:
    write_frames(tmp_path / "clips" / "a", moving_frames(7, (32, 48)))
    for _ in range(2):
        scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'", "save_frames=true")
        (tmp_path / "out" / "frames" / "a" / "00000003.png").unlink()


def test_what_a_class_of_ones_own_took_part_in_is_scored_again(
    scored: Evaluate, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what else it reads."""
    data = [
        "method=bicubic_blend",
        "data=clips",
        f"data.root='{few}'",
        "data.test_source._target_=test_evaluate_resume.Own",
    ]
    scored(*data)
    monkeypatch.setattr("stvsr.evaluate.Progress", stop)
    with pytest.raises(KeyboardInterrupt):
        scored(*data)


@pytest.mark.parametrize("replaced", ["predictions", "hr", "lr"])
def test_frames_that_are_written_anew_after_a_stop_are_scored_anew(
    scored: Evaluate, vid4: Path, tmp_path: Path, replaced: str
) -> None:
    """Users whose figures look wrong stop, mend the program or data set, and repeat the command."""
    for folder in FrameFolders(root=vid4).clips.values():
        lr = downsample(to_float(folder.read(list(folder.frames))))
        write_frames(tmp_path / "lr" / folder.path.name, (lr * 255).to(torch.uint8))
    data = ["data=clips", f"data.root='{vid4}'"]
    scored("method=bicubic_blend", *data, "save_frames=true")
    saved = [f"predictions='{tmp_path}/out/frames'", *data]
    if replaced == "lr":
        saved = ["method=bicubic_blend", *data, f"data.lr_root='{tmp_path}/lr'"]
    frames = {"predictions": tmp_path / "out" / "frames", "hr": vid4, "lr": tmp_path / "lr"}[replaced]
    wrong = sorted(frames.rglob("*.png"))[0]
    right = wrong.read_bytes()
    write_png(wrong, 255 - read_png(wrong))
    last = sorted(frames.rglob("*.png"))[-1]
    damaged = last.read_bytes()
    last.write_bytes(damaged[:-200])
    with pytest.raises(DamagedClip, match=last.name):
        scored(*saved, folder="saved")
    done = (tmp_path / "saved" / "progress" / "part-000-000.jsonl").read_text().count("\n")
    assert done > 1
    wrong.write_bytes(right)
    last.write_bytes(damaged)
    with pytest.MonkeyPatch.context() as patch:
        scores = []
        patch.setattr(scoring, "frame_scores", lambda *a: scores.append(1) or frame_scores(*a))
        resumed = scored(*saved, folder="saved")
    windows = sum(len(range(0, frames - 1, 6)) for frames in VID4.values())
    assert len(scores) == windows - done + 1, "only what had changed, and what was not done"
    assert resumed["frames"] == scored(*saved, folder="afresh")["frames"]


def test_frames_that_are_saved_anew_while_they_are_scored_are_said(
    scored: Evaluate, vid4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["data=clips", f"data.root='{vid4}'"]
    scored("method=bicubic_blend", *data, "save_frames=true")
    frames = tmp_path / "out" / "frames"
    first = sorted(frames.rglob("*.png"))[0]

    def meanwhile(*arguments: torch.Tensor) -> dict[str, torch.Tensor]:
        write_png(first, read_png(first))
        return frame_scores(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "frame_scores", meanwhile)
        with pytest.raises(InvalidInput, match=r"frames of 1 of 29 batches were overwritten while"):
            scored(f"predictions='{frames}'", *data, folder="saved")
    assert len(scored(f"predictions='{frames}'", *data, folder="saved")["frames"]) == sum(VID4.values())


def test_frames_that_were_replaced_are_measured_again(scored: Evaluate, tmp_path: Path) -> None:
    data = ["method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/val'"]
    for speed, split in ((1, "slow"), (6, "fast")):
        write_frames(tmp_path / "val" / "a", moving_frames(7, (64, 96), speed=speed))
        assert scored(*data)["clips"][0]["motion"] == split


def test_an_output_dir_can_be_used_again_for_other_clips(scored: Evaluate, tmp_path: Path) -> None:
    for clip in ("x", "y"):
        write_frames(tmp_path / clip / clip, moving_frames(9, (32, 48)))
        scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/{clip}'", "save_frames=true")
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["y"]
    assert [path.name for path in (tmp_path / "out" / "frames").iterdir()] == ["y"]
    scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/y'", "protocol=released")
    assert not list((tmp_path / "out" / "pictures" / "y").glob("slice-truth-00000008.png"))


def test_the_folder_of_a_training_is_refused(scored: Evaluate, few: Path, tmp_path: Path) -> None:
    """The log of the evaluation would replace that of the training run."""
    log = tmp_path / "out" / "csv" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step")
    (tmp_path / "out" / "checkpoints").mkdir()
    with pytest.raises(
        InvalidInput, match="is that of a training run, whose logs would be replaced; choose another output_dir"
    ):
        scored("method=bicubic_blend", "data=clips", f"data.root='{few}'")
    assert log.read_text() == "step"


@pytest.mark.parametrize("name", ["pictures", "frames", "results.json"])
def test_a_file_of_the_users_is_not_replaced(scored: Evaluate, vid4: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "out" / name
    precious.parent.mkdir()
    precious.write_text('"precious"')
    with pytest.raises(InvalidInput, match=f"out/{name}: .*; .*choose another output_dir"):
        scored("method=bicubic_blend", "data=clips", f"data.root='{vid4}'", "save_frames=true")
    assert precious.read_text() == '"precious"'


def test_a_link_to_a_disk_that_is_not_there_is_not_replaced(scored: Evaluate, vid4: Path, tmp_path: Path) -> None:
    (frames := tmp_path / "out" / "frames").parent.mkdir()
    frames.symlink_to(tmp_path / "unmounted")
    with pytest.raises(InvalidInput, match="out/frames: not a folder or a link to one"):
        scored("method=bicubic_blend", "data=clips", f"data.root='{vid4}'", "save_frames=true")
    assert frames.is_symlink()


@pytest.mark.parametrize("linked", [True, False])
def test_frames_that_no_evaluation_saved_stay_where_one_is_repeated(
    scored: Evaluate, vid4: Path, tmp_path: Path, linked: bool
) -> None:
    data = ["method=bicubic_blend", "data=clips", f"data.root='{vid4}'"]
    scored(*data)
    frames = tmp_path / "out" / "frames"
    if linked:
        (tmp_path / "mine").mkdir()
        frames.symlink_to(tmp_path / "mine")
    else:
        frames.mkdir()
    (frames / "00000001.png").write_text("precious")
    scored(*data, "batch_size=2")
    assert (frames / "00000001.png").read_text() == "precious"
    with pytest.raises(InvalidInput, match="out/frames: would be replaced, but no evaluation made it"):
        scored(*data, "save_frames=true")


@pytest.mark.parametrize("name", ["pictures", "progress", "frames"])
def test_what_no_evaluation_made_is_not_removed(scored: Evaluate, vid4: Path, tmp_path: Path, name: str) -> None:
    """An evaluation replaces what an earlier one left under these names."""
    precious = tmp_path / "out" / name / "holiday.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    if name != "progress":
        # A file of this name as other programs write it.
        (tmp_path / "out" / "results.json").write_text('{"accuracy": 0.9}')
    with pytest.raises(InvalidInput, match=f"out/{name}: .*; choose another output_dir"):
        scored("method=bicubic_blend", "data=clips", f"data.root='{vid4}'", "save_frames=true")
    assert precious.read_text() == "precious"


def test_frames_of_an_earlier_method_do_not_stay_beside_results_of_another(
    scored: Evaluate, vid4: Path, tmp_path: Path
) -> None:
    """They would be taken for the other's. Frames that are being scored themselves stay."""
    data = ["data=clips", f"data.root='{vid4}'"]
    scored("method=bicubic_blend", *data, "save_frames=true")
    frames = tmp_path / "out" / "frames"
    kept = sorted(frames.rglob("*.png"))
    scored(f"predictions='{frames}'", *data)
    assert kept
    assert sorted(frames.rglob("*.png")) == kept
    scored("method=bicubic_blend", *data)
    assert not frames.exists()


def test_the_clips_that_are_scored_are_not_removed(scored: Evaluate, vid4: Path, tmp_path: Path) -> None:
    """They stay even where an evaluation has written before."""
    scored("method=bicubic_blend", "data=clips", f"data.root='{vid4}'")
    clips = vid4.rename(tmp_path / "out" / "frames")
    frames = sorted(clips.rglob("*.png"))
    with pytest.raises(
        InvalidInput, match=r"out/frames: lies in .*out/frames, which would be replaced; choose another"
    ):
        scored("method=bicubic_blend", "data=clips", f"data.root='{clips}'", "save_frames=true")
    assert sorted(clips.rglob("*.png")) == frames


def test_frames_go_to_another_disk_by_a_link_of_which_nothing_is_removed(scored: Evaluate, tmp_path: Path) -> None:
    """The linked folder may hold more than an evaluation made."""
    (large := tmp_path / "large").mkdir()
    (frames := tmp_path / "out" / "frames").parent.mkdir()
    frames.symlink_to(large)
    for clip in ("x", "y"):
        write_frames(tmp_path / clip / clip, moving_frames(7, (32, 48)))
    settings = ["method=bicubic_blend", "save_frames=true"]
    scored(*settings, "data=clips", f"data.root='{tmp_path}/x'")
    before = sorted(large.rglob("*.png"))
    assert len(before) == 7
    # The same evaluation again needs nothing removed.
    scored(*settings, "data=clips", f"data.root='{tmp_path}/x'")
    for other in (settings, settings[:1]):
        with pytest.raises(InvalidInput, match="out/frames: is a link to a folder that is not empty; empty it"):
            scored(*other, "data=clips", f"data.root='{tmp_path}/y'")
    assert sorted(large.rglob("*.png")) == before
    assert frames.is_symlink()
