"""Scoring writes what a method really scores, however it is run: at once, in parts, from saved frames."""

import json
import os
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
from torch import Tensor

from conftest import VID4, Evaluate, moving_frames, read_csv, write_frames, write_video
from stvsr import evaluate as evaluate_module
from stvsr.checkpoint import load_network
from stvsr.data.clip import to_float
from stvsr.data.degradation import downsample
from stvsr.data.frame_folders import FrameFolders
from stvsr.data.png import read_png, write_png
from stvsr.data.vimeo90k import motion_list
from stvsr.errors import DamagedClip, InvalidInput, UserError
from stvsr.evaluate import evaluate
from stvsr.evaluation import processes, scoring
from stvsr.evaluation.job import Job
from stvsr.evaluation.perceptual import EXTRAS
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.network import run_padded


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
    scored: Evaluate, few: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    data = ["data=clips", f"data.root='{few}'"]
    network = scored(f"checkpoint='{small_checkpoint}'", *data, "save_frames=true")
    saved = scored(f"predictions='{tmp_path}/out/frames'", *data, folder="saved")
    shared = scored(f"checkpoint='{small_checkpoint}'", *data, "save_frames=true", "processes=2", folder="shared")
    batched = scored(f"checkpoint='{small_checkpoint}'", *data, "batch_size=3", folder="batched")
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
    scored: Evaluate, few: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    scored(f"checkpoint='{small_checkpoint}'", "data=clips", f"data.root='{few}'", "save_frames=true")
    frames = to_float(torch.stack([read_png(few / "city" / f"{number:08d}.png") for number in range(1, 8)]))
    with torch.no_grad():
        by_hand = run_padded(load_network(small_checkpoint), downsample(frames[::2])[None])[0]
    for number, frame in enumerate(by_hand, start=1):
        saved = read_png(tmp_path / "out" / "frames" / "city" / f"{number:08d}.png")
        assert torch.equal(saved, (frame.clamp(0, 1).double() * 255).round().to(torch.uint8))


def test_a_method_whose_name_is_no_text_is_refused_before_anything_is_scored(scored: Evaluate, tmp_path: Path) -> None:
    frames = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(InvalidInput, match=r"the method 'caf.*': the name is not UTF-8; expected text: give name="):
        scored(f"predictions='{frames}'", "name=null")


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


def test_a_config_that_names_one_method_after_the_other_names_each_in_its_results(
    configure: Callable[..., DictConfig], write_checkpoint: Callable[..., Path], few: Path
) -> None:
    """A notebook may reuse its config."""
    config = configure("evaluate", "method=bicubic_blend", "data=clips", f"data.root='{few}'", "output_dir=blend")
    assert evaluate_module.evaluate(config).name == "bicubic_blend"
    config.method, config.checkpoint, config.output_dir = None, str(write_checkpoint(0)), "network"
    assert evaluate_module.evaluate(config).name != "bicubic_blend"
