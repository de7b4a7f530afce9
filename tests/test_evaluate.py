"""Scoring writes what a method really scores, however it is run: at once, in parts, from saved frames."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, open_dict
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from conftest import SMALL_NETWORK, VID4, is_taken, moving_frames, write_frames, write_vid4, write_video
from stvsr import evaluate as evaluate_module
from stvsr.checkpoint import MODEL_KEY, VARIANT_KEY, load_network
from stvsr.config import resolved
from stvsr.data.clip import to_float
from stvsr.data.degradation import downsample
from stvsr.data.frame_folders import FrameFolders
from stvsr.data.png import read_png, write_png
from stvsr.data.vimeo90k import motion_list
from stvsr.errors import DamagedClip, Interrupted, InvalidInput, UserError
from stvsr.evaluate import evaluate
from stvsr.evaluation import processes, scoring
from stvsr.evaluation.job import Job
from stvsr.evaluation.metrics import frame_scores
from stvsr.evaluation.perceptual import EXTRAS
from stvsr.evaluation.progress import Part
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.network import run_padded

Evaluate = Callable[..., dict[str, list[dict[str, str]]]]

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


@pytest.fixture
def scored(configure: Callable[..., DictConfig], tmp_path: Path) -> Evaluate:
    """Scores, and gives the rows of `frames.csv`, `clips.csv` and `results.csv`."""

    def run(*overrides: str, folder: str = "out") -> dict[str, list[dict[str, str]]]:
        output = tmp_path / folder
        evaluate(configure("evaluate", "logger=csv", "workers=0", f"output_dir='{output}'", *overrides))
        return {name: read_csv(output / f"{name}.csv") for name in ("frames", "clips", "results")}

    return run


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def write_checkpoint(
    configure: Callable[..., DictConfig], small_network: Callable[..., nn.Module], tmp_path: Path
) -> Callable[..., Path]:
    """Writes a checkpoint of a small (a), which costs a tenth of (e) and is scored as all others are."""

    def write(seed: int = 0) -> Path:
        state = {f"network.{name}": tensor for name, tensor in small_network("a", seed).state_dict().items()}
        model = resolved(configure("train", "ablation=a", *SMALL_NETWORK).model)
        torch.save({MODEL_KEY: model, VARIANT_KEY: "a", "state_dict": state}, tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    return write


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    return write_checkpoint()


@pytest.fixture
def vid4(tmp_path: Path) -> Path:
    write_vid4(tmp_path / "vid4")
    return tmp_path / "vid4"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Two clips, six windows in all; the first clip's last window is moved back."""
    for seed, (clip, frames) in enumerate({"city": 20, "walk": 13}.items()):
        write_frames(tmp_path / "few" / clip, moving_frames(frames, (32, 48), seed=seed, speed=1 + 2 * seed))
    return tmp_path / "few"


def pictures_in(folder: Path) -> dict[Path, bytes]:
    """All PNG files below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}


def y(frame: np.ndarray) -> np.ndarray:
    """BT.601 luma of `(H, W, 3)` uint8, written out independently."""
    return 16 + (frame.astype(np.float64) @ [65.481, 128.553, 24.966]) / 255


def reference(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The three metrics of one frame by scikit-image."""
    _, ssim_map = structural_similarity(
        y(truth),
        y(prediction),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return {
        "psnr_y": peak_signal_noise_ratio(y(truth), y(prediction), data_range=255),
        "ssim_y": ssim_map[5:-5, 5:-5].mean(),
        "psnr_rgb": peak_signal_noise_ratio(truth, prediction, data_range=255),
    }


@pytest.mark.parametrize(("protocol", "counted"), [("paper", 171), ("released", 160), ("rstt", 171)])
def test_vid4_frames_are_counted_as_the_protocol_says_and_score_as_scikit_image_says(
    scored: Evaluate, vid4: Path, tmp_path: Path, protocol: str, counted: int
) -> None:
    tables = scored(
        "method=bicubic_blend", "data=vid4", f"data.root='{vid4}'", f"protocol={protocol}", "save_frames=true"
    )
    assert len(tables["frames"]) == counted
    every = tables["results"][-1]
    assert (every["name"], every["clips"], every["frames"]) == ("Vid4/all", "4", str(counted))
    assert every["frames_left_out"] == str(171 - counted)
    assert ("not covered by the protocol's windows" in every["left_out"]) == (counted == 160)
    means: dict[str, list[float]] = {}
    for row in tables["frames"]:
        name = f"{int(row['frame']):08d}.png"
        truth = np.array(Image.open(vid4 / row["clip"] / name))
        prediction = np.array(Image.open(tmp_path / "out" / "frames" / row["clip"] / name))
        expected = reference(prediction, truth)
        for metric, value in expected.items():
            assert float(row[metric]) == pytest.approx(value, abs=1e-6)
        means.setdefault(row["clip"], []).append(expected["psnr_y"])
    # Each clip of Vid4 is a top-level folder, so folder means are clip means.
    assert float(every["psnr_y"]) == pytest.approx(np.mean([np.mean(values) for values in means.values()]), abs=1e-6)


def test_the_two_stages_without_learning_are_bicubic_and_blending_and_are_told_apart(
    scored: Evaluate, vid4: Path, tmp_path: Path
) -> None:
    data = ["data=clips", f"data.root='{vid4}'"]
    # Weights of networks that do not run are not looked at.
    system = scored("model=two_stage", *data, "weights.dain=gone.pth")
    assert system["frames"] == scored("method=bicubic_blend", *data, folder="method")["frames"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["name"] == "blend + Bicubic"
    assert [stage["parameters"] for stage in results["cost"]["stages"]] == [0, 0]
    assert "0.00 (0.00 + 0.00)" in (tmp_path / "out" / "comparison.md").read_text()


def test_given_and_synthesised_frames_are_those_the_network_was_given_and_not(scored: Evaluate, tmp_path: Path) -> None:
    """In a still clip whose even frames are inverted, bicubic + blending must fail at those alone."""
    still = moving_frames(1, (32, 48)).expand(13, -1, -1, -1).clone()
    still[1::2] = 255 - still[1::2]
    write_frames(tmp_path / "clips" / "a", still)
    row = scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'")["results"][-1]
    assert (row["frames_given"], row["frames_synthesised"]) == ("7", "6")
    assert float(row["psnr_y_given"]) > float(row["psnr_y_synthesised"]) + 10


def test_network_saved_frames_two_processes_and_other_batches_score_alike(
    scored: Evaluate, few: Path, checkpoint: Path, tmp_path: Path
) -> None:
    data = ["data=clips", f"data.root='{few}'"]
    network = scored(f"checkpoint='{checkpoint}'", *data, "save_frames=true")
    saved = scored(f"predictions='{tmp_path}/out/frames'", *data, folder="saved")
    shared = scored(f"checkpoint='{checkpoint}'", *data, "save_frames=true", "processes=2", folder="shared")
    batched = scored(f"checkpoint='{checkpoint}'", *data, "batch_size=3", folder="batched")
    assert network["frames"] == saved["frames"] == shared["frames"]
    assert network["clips"] == saved["clips"] == shared["clips"]
    for one, other in zip(network["frames"], batched["frames"], strict=True):
        # Another batch size may change a value's last bit and so, rarely, a pixel's grey level.
        assert float(one["psnr_y"]) == pytest.approx(float(other["psnr_y"]), abs=1e-3)
    score_columns = [name for name in network["results"][0] if name.startswith(("psnr", "ssim", "frames", "clips"))]
    for rows in (saved["results"], shared["results"]):
        assert [[row[name] for name in score_columns] for row in rows] == [
            [row[name] for name in score_columns] for row in network["results"]
        ]
    for kind in ("frames", "pictures"):
        alone, together = (pictures_in(tmp_path / folder / kind) for folder in ("out", "shared"))
        assert alone
        assert together == alone


def test_the_first_windows_frames_are_the_networks_by_hand(
    scored: Evaluate, few: Path, checkpoint: Path, tmp_path: Path
) -> None:
    scored(f"checkpoint='{checkpoint}'", "data=clips", f"data.root='{few}'", "save_frames=true")
    frames = to_float(torch.stack([read_png(few / "city" / f"{number:08d}.png") for number in range(1, 8)]))
    with torch.no_grad():
        by_hand = run_padded(load_network(checkpoint), downsample(frames[::2])[None])[0]
    for number, frame in enumerate(by_hand, start=1):
        saved = read_png(tmp_path / "out" / "frames" / "city" / f"{number:08d}.png")
        assert torch.equal(saved, (frame.clamp(0, 1).double() * 255).round().to(torch.uint8))


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
    scored: Evaluate, few: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"checkpoint='{checkpoint}'", "data=clips", f"data.root='{few}'"]
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


def test_a_method_whose_name_is_no_text_is_refused_before_anything_is_scored(scored: Evaluate, tmp_path: Path) -> None:
    frames = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(InvalidInput, match=r"the method 'caf.*': the name is not UTF-8; expected text: give name="):
        scored(f"predictions='{frames}'", "name=null")


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


def test_a_worker_that_finds_damage_does_not_keep_the_program_from_ending(few: Path, tmp_path: Path) -> None:
    """Workers ignore SIGTERM, except from the process that they serve."""
    file = few / "city" / "00000003.png"
    file.write_bytes(file.read_bytes()[:500])
    arguments = ["method=bicubic_blend", "data=clips", f"data.root='{few}'", "workers=2", "logger=csv"]
    command = [sys.executable, "-m", "stvsr.evaluate", *arguments, f"output_dir='{tmp_path}/out'"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=180)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_too_many_windows_at_once_for_the_memory_are_one_line(
    scored: Evaluate, vid4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(network: object, lr: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(scoring, "run_padded", full)
    with pytest.raises(InvalidInput, match=r"has too little memory for 3 window\(s\) of .* a smaller batch_size or a"):
        scored("method=bicubic_blend", "data=clips", f"data.root='{vid4}'", "batch_size=3")


def test_an_error_in_a_process_reaches_the_user_in_one_line(scored: Evaluate, few: Path) -> None:
    """The error occurs in a loader worker of that process."""
    file = few / "city" / "00000003.png"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"00000003\.png: not a readable PNG") as caught:
        scored("method=bicubic_blend", "data=clips", f"data.root='{few}'", "processes=2", "workers=1")
    assert len(str(caught.value)) < 300
    assert "Traceback" not in str(caught.value)


def test_a_process_that_was_killed_is_told() -> None:
    # Out of memory, a system sends SIGTERM first, then SIGKILL.
    with pytest.raises(SystemExit) as stop:
        processes._exit_on_signal(signal.SIGTERM, None)
    for status in (stop.value.code, -signal.SIGKILL):
        with pytest.raises(UserError, match=rf"process 0 of 1 ended with status {status} .* processes=1"):
            processes._check_alive([SimpleNamespace(exitcode=status)])


def test_lr_frames_given_beside_are_used(scored: Evaluate, vid4: Path, tmp_path: Path) -> None:
    clips = FrameFolders(root=vid4)
    for index, name in enumerate(clips.names):
        frames = clips.excerpt(index, 0, clips.describe(index).frames).hr
        lr = (downsample(to_float(frames)) * 255).round().to(torch.uint8)
        write_frames(tmp_path / "same" / name, lr)
        write_frames(tmp_path / "darker" / name, lr // 2)
    data = ["method=bicubic_blend", "data=clips", f"data.root='{vid4}'"]
    made = scored(*data)
    same = scored(*data, f"data.lr_root='{tmp_path}/same'", folder="same-out")
    darker = scored(*data, f"data.lr_root='{tmp_path}/darker'", folder="darker-out")
    assert made["frames"] == same["frames"]
    settings = json.loads((tmp_path / "same-out" / "results.json").read_text())["settings"]
    assert settings["lr_frames"] == f"given in {tmp_path}/same"
    assert float(darker["results"][-1]["psnr_y"]) < float(made["results"][-1]["psnr_y"]) - 3


def test_of_several_sets_those_with_lr_frames_are_told(
    configure: Callable[..., DictConfig], vid4: Path, tmp_path: Path
) -> None:
    """Paths are absolute, because a report may be made from another folder."""
    write_frames(tmp_path / "lr" / "a", moving_frames(7, (8, 12)))
    write_frames(tmp_path / "hr" / "a", moving_frames(7, (32, 48)))
    with open_dict(config := configure("evaluate", "method=bicubic_blend", "output_dir=out")):
        frames = {"_target_": "stvsr.data.frame_folders.FrameFolders"}
        given = {**frames, "root": "hr", "lr_root": "lr"}
        sets = [given, {**frames, "root": "vid4", "lr_root": None}]
        config.data.test_source = {"_target_": "stvsr.data.clip_sets.ConcatClipSet", "sets": sets}
    settings = Job(config, torch.device("cpu")).settings()
    assert settings["lr_frames"] == f"given in {tmp_path}/lr, of the other sets MATLAB bicubic"
    assert [part["root"] for part in settings["data"]["sets"]] == [f"{tmp_path}/hr", str(vid4)]
    del sets[1]
    config.data.test_source.sets = sets
    assert Job(config, torch.device("cpu")).settings()["lr_frames"] == f"given in {tmp_path}/lr"


def test_an_incomplete_last_row_is_cut_off_and_said(scored: Evaluate, tmp_path: Path) -> None:
    frames = moving_frames(7, (35, 50))
    write_frames(tmp_path / "odd" / "a", frames)
    write_frames(tmp_path / "even" / "a", frames[..., :32, :48])
    odd, even = (
        scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/{name}'", "save_frames=true", folder=name)
        for name in ("odd", "even")
    )
    assert [row["psnr_y"] for row in odd["frames"]] == [row["psnr_y"] for row in even["frames"]]
    assert json.loads((tmp_path / "odd" / "results.json").read_text())["cropped"] == {"odd/a": "50x35 to 48x32"}
    assert "50x35 to 48x32" in (tmp_path / "odd" / "results.md").read_text()


def test_black_clips_are_left_out_by_name(scored: Evaluate, tmp_path: Path) -> None:
    write_frames(tmp_path / "clips" / "moving", moving_frames(7, (32, 48)))
    write_frames(tmp_path / "clips" / "black", torch.zeros(7, 3, 32, 48, dtype=torch.uint8))
    tables = scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'")
    every = tables["results"][-1]
    assert (every["clips"], every["clips_left_out"], every["left_out"]) == ("1", "1", "1 clip: all black")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["left_out"] == {"clips/black": "all black"}


def test_predictions_for_only_some_clips_are_refused(scored: Evaluate, vid4: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "saved" / "city", moving_frames(34, (32, 48)))
    with pytest.raises(InvalidInput, match=r"3 of 4 clips have no folder, the first is calendar"):
        scored(f"predictions='{tmp_path}/saved'", "data=clips", f"data.root='{vid4}'")


def test_motion_is_measured_once_and_kept_beside_the_results(
    scored: Evaluate, vid4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["method=bicubic_blend", "data=clips", f"data.root='{vid4}'", f"motion_cache='{tmp_path}/motion.csv'"]
    first = scored(*data)
    assert len(read_csv(tmp_path / "motion.csv")) == 171 - 4
    before = sorted(path.name for path in vid4.rglob("*"))

    def never(frames: torch.Tensor) -> list[float]:
        raise AssertionError("measured again")

    monkeypatch.setattr("stvsr.evaluation.windows.measure_motion", never)
    again = scored(*data, folder="again")
    assert again["clips"] == first["clips"]
    assert sorted(path.name for path in vid4.rglob("*")) == before


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


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (12, 8), (11, 48)])
def test_frames_too_small_to_score_are_named(scored: Evaluate, tmp_path: Path, size: tuple[int, int]) -> None:
    write_frames(tmp_path / "clips" / "tiny", torch.zeros(7, 3, *size, dtype=torch.uint8))
    with pytest.raises(DamagedClip, match=r"clip tiny: frames are .* expected at least 11 pixels each way"):
        scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'")


def test_results_say_what_was_scored(scored: Evaluate, vid4: Path, tmp_path: Path) -> None:
    scored("method=bicubic_blend", "data=clips", f"data.root='{vid4}'", "motion.fast=5")
    settings = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]
    assert settings["data"]["root"] == str(vid4)
    assert settings["thresholds"] == {"medium": 1.5, "fast": 5.0}
    assert settings["lr_frames"] == "MATLAB bicubic of the HR frames"
    assert settings["motion"] == "measured for 4 clips, given by the data for 0"


def test_measured_motion_orders_clips_by_their_true_speed(scored: Evaluate, vid4: Path) -> None:
    clips = {row["clip"]: row for row in scored("method=bicubic_blend", "data=clips", f"data.root='{vid4}'")["clips"]}
    assert [clips[name]["motion"] for name in VID4] == ["slow", "medium", "fast", "fast"]
    for seed, name in enumerate(VID4):
        assert float(clips[name]["pixels"]) == pytest.approx(0.5 + 2 * seed, rel=0.25)


def test_several_clip_sets_are_scored_in_one_run(scored: Evaluate, vid4: Path, tmp_path: Path) -> None:
    sequences = tmp_path / "vimeo" / "sequences"
    listed = {motion: motion_list(motion)[0] for motion in ("slow", "medium", "fast")}
    for seed, name in enumerate(listed.values()):
        write_frames(sequences / name, moving_frames(7, (32, 48), seed=seed), name="im{}.png")
    tables = scored(
        "method=bicubic_blend",
        "data=table1",
        f"data.vid4_root='{vid4}'",
        f"data.vimeo90k_root='{tmp_path}/vimeo'",
        "+data.test_source.sets.1.source.clips_per_split=1",
        "save_frames=true",
    )
    names = [row["name"] for row in tables["results"]]
    assert names[-4:] == ["Vimeo-90K/slow", "Vimeo-90K/medium", "Vimeo-90K/fast", "Vimeo-90K/all"]
    assert "Vid4/all" in names
    assert (tmp_path / "out" / "frames" / "Vimeo-90K" / listed["fast"] / "00000007.png").is_file()
    comparison = (tmp_path / "out" / "comparison.md").read_text()
    assert "| Zooming Slow-Mo (e) | published | paper |" in comparison
    assert "26.31 / 0.7976" in comparison


@pytest.mark.parametrize(("name", "printed"), [("c", "(c)"), ("cd", "cd"), ("mine", "mine"), ("12", "12"), ("0", "0")])
def test_only_an_ablations_letter_stands_in_brackets(scored: Evaluate, tmp_path: Path, name: str, printed: str) -> None:
    write_frames(tmp_path / "clips" / "a", moving_frames(7, (32, 48)))
    scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'", f"name={name}")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["name"] == printed


@pytest.mark.parametrize("batch_size", [1, 4])
def test_videos_are_scored_whole_but_for_windows_over_a_cut(scored: Evaluate, tmp_path: Path, batch_size: int) -> None:
    frames = torch.cat([moving_frames(15, (48, 64), seed=0), 255 - moving_frames(15, (48, 64), seed=5)])
    write_video(tmp_path / "videos" / "a.mp4", frames)
    data = ["data=videos", f"data.root='{tmp_path}/videos'", f"batch_size={batch_size}"]
    tables = scored("method=bicubic_blend", *data, "save_frames=true")
    every = tables["results"][-1]
    # Windows start at 0, 6, 12, 18 and, moved back, at 23; that from 12 crosses the cut at 15 and counts 13 to 18.
    assert int(every["frames"]) == 30 - 6
    assert every["left_out"] == "6 frames: scene cut"
    assert 13 not in [int(row["frame"]) for row in tables["frames"]]
    saved = scored(f"predictions='{tmp_path}/out/frames'", *data, folder="saved")
    assert saved["frames"] == tables["frames"]
    assert saved["results"][-1]["left_out"] == every["left_out"]


def test_clips_of_several_sizes_score_alike_in_any_batches(scored: Evaluate, tmp_path: Path) -> None:
    for seed, size in enumerate([(32, 48), (32, 48), (48, 64), (32, 48), (48, 64)]):
        write_frames(tmp_path / "clips" / f"clip{seed}", moving_frames(7, size, seed=seed))
    data = ["method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'"]
    one, three = (scored(*data, f"batch_size={size}", folder=f"by{size}") for size in (1, 3))
    assert len(one["frames"]) == 5 * 7
    assert (three["frames"], three["clips"]) == (one["frames"], one["clips"])


def test_frames_that_are_saved_but_not_scored_count_in_all_times(
    scored: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages' times are part of the network's."""
    frames = torch.cat([moving_frames(9, (48, 64), seed=0), 255 - moving_frames(9, (48, 64), seed=5)])
    write_video(tmp_path / "videos" / "a.mp4", frames)
    monkeypatch.setattr("stvsr.unfinished.Unfinished.finish", lambda progress: None)
    scored("model=two_stage", "data=videos", f"data.root='{tmp_path}/videos'", "save_frames=true")
    (part,) = (tmp_path / "out" / "progress").glob("part-*.jsonl")
    records = [json.loads(line) for line in part.read_text().splitlines()]
    assert any(window["interruption"] for record in records for window in record["windows"])
    for record in records:
        assert record["network_frames"] == 7
        assert 0 < sum(record["stage_seconds"].values()) <= record["network_seconds"]


def test_frames_that_a_network_is_given_around_a_window_are_neither_scored_nor_shown(
    scored: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clip, count in enumerate((20, 7, 13)):
        write_frames(tmp_path / "clips" / f"clip{clip}", moving_frames(count, (32, 48), seed=clip))
    data = ["model=two_stage", "data=clips", f"data.root='{tmp_path}/clips'", "batch_size=3"]
    alone = scored(*data, folder="alone")
    monkeypatch.setattr(Bicubic, "reach", 3)
    around = scored(*data, folder="around")
    assert (around["frames"], around["clips"]) == (alone["frames"], alone["clips"])
    pictures = [pictures_in(tmp_path / folder) for folder in ("alone", "around")]
    assert pictures[0]
    assert pictures[0] == pictures[1]


def test_extra_files_in_the_folder_do_not_count_as_frames(scored: Evaluate, tmp_path: Path) -> None:
    write_frames(tmp_path / "clips" / "a", moving_frames(7, (32, 48)))
    (tmp_path / "clips" / "a" / "notes.txt").write_text("made by hand")
    (tmp_path / "clips" / "a" / ".hidden.png").write_text("")
    assert len(scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'")["frames"]) == 7


def test_bicubic_by_hand_is_bicubic_by_the_program(scored: Evaluate, tmp_path: Path) -> None:
    frames = moving_frames(7, (32, 48))
    write_frames(tmp_path / "clips" / "a", frames)
    by_hand = BicubicBlend()(downsample(to_float(frames[::2]))[None])[0]
    for number, frame in enumerate(by_hand, start=1):
        folder = tmp_path / "hand" / "a"
        folder.mkdir(parents=True, exist_ok=True)
        write_png(folder / f"{number:08d}.png", (frame.clamp(0, 1).double() * 255).round().to(torch.uint8))
    data = ["data=clips", f"data.root='{tmp_path}/clips'"]
    program = scored("method=bicubic_blend", *data)
    assert scored(f"predictions='{tmp_path}/hand'", *data, folder="hand-out")["frames"] == program["frames"]


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (lambda *_: [1.0], r"extras=\[mine\]: returned \[1\.0\]; expected a value for each of 7 frames"),
        (lambda *_: torch.tensor(2.5), r"extras=\[mine\]: returned 2\.5; expected a value for each"),
    ],
)
def test_a_metric_that_gives_no_value_for_each_frame_is_refused(
    scored: Evaluate, monkeypatch: pytest.MonkeyPatch, metric: Callable[..., Any], says: str
) -> None:
    monkeypatch.setitem(EXTRAS, "mine", lambda device: metric)
    with pytest.raises(InvalidInput, match=says):
        scored("method=bicubic_blend", "data.test_source.source.clips=3", "extras=[mine]")


def test_a_metric_may_give_a_tensor(scored: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "mine", lambda device: lambda prediction, *_: torch.arange(len(prediction)))
    frames = scored("method=bicubic_blend", "data.test_source.source.clips=3", "extras=[mine]")["frames"]
    assert [float(row["mine"]) for row in frames[:7]] == [*range(7)]


def test_a_metric_is_told_the_frame_before(scored: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip's first window has none; a later window shares it with the window before."""
    frames = moving_frames(13, (32, 48))
    write_frames(tmp_path / "clips" / "a", frames)
    told = []

    def metric(prediction: Tensor, target: Tensor, before: Tensor) -> list[float]:
        told.append((target.clone(), before.clone()))
        return [0.0] * len(target)

    monkeypatch.setitem(EXTRAS, "mine", lambda device: metric)
    scored("method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'", "extras=[mine]")
    assert [(len(target), len(before)) for target, before in told] == [(7, 0), (6, 1)]
    assert torch.equal(torch.cat([*told[0], *reversed(told[1])][2:]), frames[6:])


@pytest.mark.parametrize(("count", "least"), [("batch_size", 1), ("workers", 0), ("processes", 1), ("pictures", 0)])
def test_counts_that_make_no_sense_are_refused(
    configure: Callable[..., DictConfig], tmp_path: Path, count: str, least: int
) -> None:
    config = configure("evaluate", "method=bicubic_blend")
    config.output_dir = str(tmp_path)
    config[count] = least - 1
    with pytest.raises(InvalidInput, match=f"{count}={least - 1}; expected a whole number, {least} or more"):
        evaluate(config)


@pytest.mark.parametrize("switch", ["cover_tail", "average_folders"])
def test_no_is_not_taken_for_true_by_a_protocol(scored: Evaluate, switch: str) -> None:
    with pytest.raises(InvalidInput, match=f"protocol.{switch}=no; expected true or false"):
        scored("method=bicubic_blend", f"protocol.{switch}=no")


def test_a_method_that_is_no_network_of_ours_is_refused(scored: Evaluate) -> None:
    with pytest.raises(InvalidInput, match="method: Identity is no"):
        scored("method=bicubic_blend", "method._target_=torch.nn.Identity")


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
        for other in (*others, "deformable=blocked", "pictures=1", "data.test_source._target_=test_evaluate.Own"):
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
    data = ["method=bicubic_blend", "data=clips", f"data.root='{few}'", "data.test_source._target_=test_evaluate.Own"]
    scored(*data)
    monkeypatch.setattr("stvsr.evaluate.Progress", stop)
    with pytest.raises(KeyboardInterrupt):
        scored(*data)


def test_a_config_that_names_one_method_after_the_other_names_each_in_its_results(
    configure: Callable[..., DictConfig], write_checkpoint: Callable[..., Path], few: Path
) -> None:
    """A notebook may reuse its config."""
    config = configure("evaluate", "method=bicubic_blend", "data=clips", f"data.root='{few}'", "output_dir=blend")
    assert evaluate_module.evaluate(config).name == "bicubic_blend"
    config.method, config.checkpoint, config.output_dir = None, str(write_checkpoint(0)), "network"
    assert evaluate_module.evaluate(config).name != "bicubic_blend"


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
