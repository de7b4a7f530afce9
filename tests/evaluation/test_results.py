"""Result files state what was measured, and can be read back."""

import csv
import json
from pathlib import Path

import pytest

from stvsr.data.clip_sets import ClipInfo
from stvsr.errors import InvalidInput
from stvsr.evaluation.costs import Cost, StageCost
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.results import Results, read_results
from stvsr.evaluation.rows import summarise
from stvsr.evaluation.scores import ClipScore, FrameScore

PROTOCOL = Protocol("released", False, False)


def clip(name: str, psnr: float, left_out: str | None = None) -> ClipScore:
    frames = [
        FrameScore(i, i % 2 == 0, {"psnr_y": psnr, "ssim_y": 0.5, "psnr_rgb": psnr, "lpips": 0.1}, 1.0)
        for i in range(7)
    ]
    return ClipScore(ClipInfo("set", name, 10, 0, None), "slow", 1.0, frames, {"not covered": 3}, "", left_out)


CLIPS = [clip("a", 30.0), clip("b", 32.0), clip("black", float("inf"), "all black")]
COST = Cost(11_102_771, 72.7e9, (448, 256), 0.06, "Titan XP", 1234.5, [StageCost(1, 0.02), StageCost(11_102_770, None)])


def results() -> Results:
    return Results(
        name="(e)",
        protocol=PROTOCOL,
        cost=COST,
        rows=summarise(CLIPS, PROTOCOL),
        settings={"lr_frames": "given in lr", "motion": "measured for 3 clips, given by the data for 0"},
        seconds={"network": 1.0, "scoring": 0.1, "waiting": 0.0},
        left_out={"set/black": "all black"},
        cropped={"set/a": "49x35 to 48x32"},
    )


def test_results_survive_the_file(tmp_path: Path) -> None:
    results().write(tmp_path / "new", CLIPS)
    read = read_results(tmp_path / "new")
    assert read.rows == results().rows
    assert read.protocol == PROTOCOL
    assert read.cost.parameters == 11_102_771
    assert read.left_out == {"set/black": "all black"}


def test_where_results_are_is_all_that_a_report_needs(tmp_path: Path) -> None:
    (tmp_path / "frames.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        results().write(tmp_path, CLIPS)
    assert not (tmp_path / "results.json").exists()


def test_json_has_a_row_for_each_split_with_the_documented_names(tmp_path: Path) -> None:
    results().write(tmp_path, CLIPS)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["says"].startswith("protocol released")
    every = content["rows"][-1]
    assert every["name"] == "set/all"
    assert (every["clips"], every["frames"], every["clips_left_out"], every["frames_left_out"]) == (2, 14, 1, 6)
    for metric in ("psnr_y", "ssim_y", "psnr_rgb", "lpips"):
        for part in ("", "_given", "_synthesised"):
            assert metric + part in every


def test_every_form_says_protocol_counts_costs_and_what_was_left_out(tmp_path: Path) -> None:
    results().write(tmp_path, CLIPS)
    text = results().table().as_text()
    for said in (text, (tmp_path / "results.md").read_text(), (tmp_path / "results.tex").read_text()):
        for what in (
            "protocol released",
            "11,102,771 parameters (1 + 11,102,770)",
            "72.7 G multiply-adds a frame of 448x256",
            "0.0600 s (0.0200 + -) a frame on Titan XP",
            "peak memory 1234 MiB",
            "1 clip: all black",
            "(all black)",
        ):
            assert what in said
        assert "6 frames: not covered" in said
        assert "49x35 to 48x32" in said
        assert "LPIPS" in said
        assert "LR frames: given in lr; motion split: measured for 3 clips" in said
    with (tmp_path / "results.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert (row["protocol"], row["parameters"], row["device"]) == ("released", "11102771", "Titan XP")


def test_clips_and_frames_are_all_there(tmp_path: Path) -> None:
    results().write(tmp_path, CLIPS)
    with (tmp_path / "clips.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    assert [(row["clip"], row["left_out"]) for row in clips] == [("a", ""), ("b", ""), ("black", "all black")]
    with (tmp_path / "frames.csv").open(newline="") as file:
        frames = list(csv.DictReader(file))
    assert len(frames) == 21
    assert [row["kind"] for row in frames[:3]] == ["given", "synthesised", "given"]


def test_a_score_that_is_no_number_is_refused(tmp_path: Path) -> None:
    results().write(tmp_path, [])
    path = tmp_path / "results.json"
    content = json.loads(path.read_text())
    content["rows"][0]["psnr_y"] = "high"
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidInput, match="not the results of this version"):
        read_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no results\.json there"):
        read_results(tmp_path)
    for content in ("{}", "not json", '{"rows": []}'):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(InvalidInput, match="not the results of this version"):
            read_results(tmp_path)
