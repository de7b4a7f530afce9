"""Methods compared: measured and published rows are marked, and differences between the clips are reported."""

import csv
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from stvsr.evaluation.comparison import PUBLISHED_CLIPS, comparison_csv, comparison_table, entries, published
from stvsr.evaluation.costs import Cost, StageCost
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.results import Results
from stvsr.evaluation.rows import Row

SCORES = {"psnr_y": 25.0, "ssim_y": 0.7, "psnr_rgb": 24.0}


def run(*names: str, method: str = "ours", clips: int | None = None) -> Results:
    counts = [clips or PUBLISHED_CLIPS.get(name, 4) for name in names]
    rows = [
        Row(*name.split("/"), count, 7 * count, 0, 0, "3 frames: cut", dict(SCORES))  # type: ignore[arg-type]
        for name, count in zip(names, counts, strict=True)
    ]
    cost = Cost(11_102_771, 72.7e9, (448, 256), 0.05, "Some GPU", 1000.0)
    return Results(method, Protocol("paper", True, False), cost, rows, {}, {})


def cells(table: object, method: str) -> dict[str, str]:
    (row,) = (row for row in table.rows if row[0] == method)  # type: ignore[attr-defined]
    return dict(zip(table.columns, row, strict=True))  # type: ignore[attr-defined]


def test_columns_stand_as_in_table_1() -> None:
    splits = [f"Vimeo-90K/{split}" for split in ("slow", "medium", "fast", "all")]
    table = comparison_table(entries([run("Vid4/all", *splits)]))
    assert [column for column in table.columns if column.startswith("Vi")] == [
        *("Vid4 all", "Vimeo-90K fast", "Vimeo-90K medium", "Vimeo-90K slow", "Vimeo-90K all")
    ]
    ours = cells(table, "ours")
    assert ours["Vid4 all"] == "25.00 / 0.7000"
    assert (ours["status"], ours["protocol"], ours["counted"]) == (
        "measured",
        "paper",
        "Vid4: 4 clips, 28 frames; Vimeo-90K: 4 clips, 28 frames",
    )
    assert (ours["M param."], ours["G mult.-adds"], ours["s a frame"]) == ("11.10", "72.7", "0.0500")


def test_the_papers_table_1_is_printed_where_its_clips_were_scored() -> None:
    table = comparison_table(entries([run("Vid4/all")]))
    zooming = cells(table, "Zooming Slow-Mo (e)")
    assert (zooming["status"], zooming["Vid4 all"], zooming["s a frame"]) == ("published", "26.31 / 0.7976", "0.0606")
    assert cells(table, "Zooming Slow-Mo (b)")["status"] == "as remembered"
    assert cells(table, "Zooming Slow-Mo (e) re-measured by others")["protocol"] == "released"
    assert cells(table, "RSTT-S")["protocol"] == "rstt"
    assert any("Titan XP" in note for note in table.notes)


def test_costs_are_told_with_the_frames_and_the_device_that_they_are_of() -> None:
    """Seconds cannot be compared between frames of Vimeo-90K and those of Vid4, over 3 times as large."""
    measured = run("mine/all")
    other = run("mine/all", method="theirs")
    other = replace(other, cost=replace(other.cost, frame_size=(720, 576), device="Another"))
    saved = replace(measured, cost=Cost())
    said = [
        [note for note in comparison_table(entries(runs)).notes if "seconds:" in note]
        for runs in ([measured], [measured, other], [saved])
    ]
    assert said == [
        ["Multiply-adds and seconds: frames of 448x256 on Some GPU."],
        ["Multiply-adds and seconds: frames of 448x256 on Some GPU (ours); frames of 720x576 on Another (theirs)."],
        [],
    ]


def test_true_frames_that_were_replaced_under_one_path_are_told() -> None:
    ours, theirs = (replace(run("mine/all"), name=name) for name in ("ours", "theirs"))
    ours.settings["beginnings"] = {"mine": "ab"}
    theirs.settings["beginnings"] = {"mine": "cd"}
    (note,) = differing(ours, theirs)
    assert note == "methods were scored on different versions of mine: pixels: ab (ours) or cd (theirs)"


def test_a_protocol_that_was_changed_under_its_name_is_told() -> None:
    changed = replace(run("Vid4/all", method="theirs"), protocol=Protocol("paper", False, False))
    notes = comparison_table(entries([run("Vid4/all"), changed])).notes
    assert [note.split("; ")[1] for note in notes if note.startswith("protocol paper: ")] == [
        "all frames",
        "whole windows of 7 only, the tail of a clip is left out",
    ]


def test_published_rows_do_not_stand_beside_some_of_the_clips() -> None:
    assert [entry.method for entry in entries([run("Vid4/all", clips=3)])] == ["ours"]
    table = comparison_table(entries([run("Vid4/all"), run("Vimeo-90K/fast", clips=3)]))
    zooming = cells(table, "Zooming Slow-Mo (e)")
    assert (zooming["Vid4 all"], zooming["Vimeo-90K fast"]) == ("26.31 / 0.7976", "-")


def test_published_rows_stand_beside_all_of_the_clips_also_where_one_counts_in_no_mean() -> None:
    """Exactly predicted clips are left out of means."""
    ours = run("Vid4/all")
    row = replace(ours.rows[0], clips=3, clips_left_out=1)
    assert cells(comparison_table(entries([replace(ours, rows=[row])])), "TMNet")["Vid4 all"] == "26.43 / 0.8016"


def on(root: str, method: str, clip_set: str = "Vid4", **settings: Any) -> Results:
    """A run on a single clip set, with settings in the form of `Job.settings`."""
    data = {"_target_": "FrameFolders", "root": root, "lr_root": None, "name": clip_set, "frames": {"city": 34}}
    told = {"data": data | settings.pop("data", {}), "thresholds": {"medium": 1.5, "fast": 4.0}, **settings}
    return replace(run(f"{clip_set}/all", method=method), settings=told)


def differing(*runs: Results) -> list[str]:
    return [note for note in comparison_table(entries(runs)).notes if "different versions" in note]


def test_runs_on_other_frames_under_one_name_are_told_by_what_differs() -> None:
    assert differing(on("/a/vid4", "ours"), on("/b/vid4", "theirs"), on("/a/vid4", "others")) == [
        "methods were scored on different versions of Vid4: root: /a/vid4 (ours, others) or /b/vid4 (theirs)"
    ]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"data": {"lr_root": "/lr"}}, "lr_root: null (ours) or /lr (theirs)"),
        ({"thresholds": {"medium": 1.5, "fast": 5.0}}, "motion.fast: 4.0 (ours) or 5.0 (theirs)"),
    ],
)
def test_other_lr_frames_and_other_motion_splits_are_told(other: dict[str, Any], says: str) -> None:
    assert differing(on("/a", "ours"), on("/a", "theirs", **other)) == [
        f"methods were scored on different versions of Vid4: {says}"
    ]


def test_another_number_of_clips_is_told() -> None:
    assert differing(run("mine/all", method="ours"), run("mine/all", method="theirs", clips=3)) == [
        "methods were scored on different versions of mine: clips: 4 (ours) or 3 (theirs)"
    ]


def test_a_set_scored_alone_and_among_others_is_the_same_one() -> None:
    alone = on("/a/vid4", "ours")
    unnamed, others = ({"root": "/a/Vid4"}, {"name": "Vimeo-90K", "source": {"root": "/v"}})
    named = {"root": "/a/vid4", "name": "Vid4"}
    among = run("Vid4/all", "Vimeo-90K/all", method="theirs")
    for part, expected in ((named, []), (unnamed, ["root: /a/vid4 (ours) or /a/Vid4 (theirs)"])):
        data = {"_target_": "ConcatClipSet", "sets": [others, part]}
        told = {"data": data, "thresholds": alone.settings["thresholds"]}
        assert differing(alone, replace(among, settings=told)) == [
            f"methods were scored on different versions of Vid4: {what}" for what in expected
        ]


def test_different_sets_are_no_difference() -> None:
    assert differing(on("/a", "ours"), on("/b", "theirs", clip_set="mine")) == []


def further(method: str, **extras: float) -> Results:
    """A run with additional metrics."""
    plain = run("mine/slow", "mine/all", method=method)
    return replace(plain, rows=[replace(row, scores=row.scores | extras) for row in plain.rows])


def test_further_metrics_of_any_run_are_columns_of_the_table() -> None:
    table = comparison_table(entries([further("plain"), further("rich", lpips=0.123, vmaf=80.5)]))
    assert [column for column in table.columns if column.startswith("mine")] == [
        *("mine slow", "mine all"),
        *("mine slow LPIPS", "mine all LPIPS", "mine slow VMAF", "mine all VMAF"),
    ]
    assert cells(table, "rich")["mine all LPIPS"] == "0.1230"
    assert cells(table, "plain")["mine slow VMAF"] == "-"
    assert not any("LPIPS" in column for column in comparison_table(entries([further("plain")])).columns)


def test_a_metric_has_no_column_for_clips_that_nobody_measured_it_on() -> None:
    table = comparison_table(entries([run("other/all", method="plain"), further("rich", lpips=0.123)]))
    assert [column for column in table.columns if "LPIPS" in column] == ["mine slow LPIPS", "mine all LPIPS"]


def test_further_metrics_of_any_run_are_columns_of_the_csv() -> None:
    text = comparison_csv(entries([further("plain"), further("rich", lpips=0.123)]))
    rows = {(row["method"], row["clips_and_split"]): row["lpips"] for row in csv.DictReader(StringIO(text))}
    assert (rows["plain", "mine/all"], rows["rich", "mine/all"]) == ("", "0.123")
    assert "lpips" not in comparison_csv(entries([further("plain")]))


def test_what_was_left_out_is_said_in_the_comparison_too() -> None:
    notes = comparison_table(entries([run("mine/all", "mine/fast")])).notes
    assert [note for note in notes if "left out" in note] == [
        "ours, protocol paper: left out of mine/all: 3 frames: cut"
    ]


def test_clips_that_were_cut_are_said_in_the_comparison_too() -> None:
    notes = comparison_table(entries([replace(run("mine/all"), cropped={"mine/a": "721x577 to 720x576"})])).notes
    assert "ours, protocol paper: cut to whole LR pixels: 1 clip(s), mine/a from 721x577 to 720x576" in notes


def test_means_over_different_clips_are_told() -> None:
    """A frame that one method predicts exactly leaves its clip out of that method's means alone."""
    black = {"mine/fade": "infinite PSNR", "mine/night": "all black"}
    exact = replace(run("mine/all", method="exact"), left_out=black)
    close = replace(run("mine/all", method="close"), left_out={"mine/night": "all black"})
    elsewhere = run("other/all", method="elsewhere")
    notes = comparison_table(entries([exact, close, elsewhere])).notes
    assert [note for note in notes if "its means" in note] == [
        "exact, protocol paper: its means are without mine/fade, which count for other methods"
    ]


def test_a_clip_that_counts_in_another_version_of_a_set_is_another_clip() -> None:
    exact = replace(on("/a/vid4", "exact"), left_out={"Vid4/walk": "infinite PSNR"})
    notes = comparison_table(entries([exact, on("/b/vid4", "close")])).notes
    assert not [note for note in notes if "its means" in note]


def test_published_rows_do_not_stand_beside_other_clips() -> None:
    compared = entries([run("mine/all", "mine/fast")])
    assert [entry.method for entry in compared] == ["ours"]
    assert not any("Titan XP" in note for note in comparison_table(compared).notes)


@pytest.mark.parametrize(
    ("method", "column", "scores"),
    [
        ("DAIN + Bicubic", "Vimeo-90K/fast", (32.41, 0.8910)),
        ("DAIN + EDVR", "Vimeo-90K/fast", (35.81, 0.9323)),
        ("DAIN + EDVR", "Vimeo-90K/medium", (34.66, 0.9281)),
        ("SuperSloMo + RCAN", "Vimeo-90K/medium", (32.50, 0.8884)),
        ("SepConv + RBPN", "Vid4/all", (26.08, 0.7751)),
        ("Zooming Slow-Mo (e)", "Vimeo-90K/slow", (33.36, 0.9138)),
        ("TMNet", "Vid4/all", (26.43, 0.8016)),
    ],
)
def test_published_figures_are_the_repaired_ones(method: str, column: str, scores: tuple[float, float]) -> None:
    (entry,) = (entry for entry in published() if entry.method == method)
    assert entry.scores[column] == scores


def test_table_1_has_its_twelve_two_stage_rows() -> None:
    assert sum(" + " in entry.method for entry in published()) == 12


def test_what_a_method_costs_stands_under_its_name_in_the_csv_and_that_of_its_stages_in_the_table() -> None:
    ours = run("mine/all")
    stages = [StageCost(10_000_000, 0.02), StageCost(1_102_771, None)]
    compared = entries([replace(ours, cost=replace(ours.cost, stages=stages))])
    (row,) = csv.DictReader(StringIO(comparison_csv(compared)))
    assert [float(row[name]) for name in ("parameters_million", "multiply_adds_billion")] == [11.102771, 72.7]
    assert [float(row[name]) for name in ("seconds_per_frame", "peak_memory_mib")] == [0.05, 1000]
    assert (row["device"], row["frame_size"]) == ("Some GPU", "448x256")
    told = cells(comparison_table(compared), "ours")
    assert (told["M param."], told["s a frame"]) == ("11.10 (10.00 + 1.10)", "0.0500 (0.0200 + -)")


def test_csv_tells_what_was_counted_and_scores_given_and_synthesised_frames_apart() -> None:
    ours = run("mine/all")
    (row,) = ours.rows
    apart = {"psnr_y_given": 26.0, "ssim_y_synthesised": 0.6}
    ours = replace(ours, rows=[replace(row, scores=row.scores | apart)])
    published_row, *_, told = csv.DictReader(StringIO(comparison_csv([published()[0], *entries([ours])])))
    assert (published_row["clips"], published_row["psnr_rgb"]) == ("", "")
    names = ("clips", "frames", "psnr_rgb", "psnr_y_given", "ssim_y_synthesised")
    assert [told[name] for name in names] == ["4", "28", "24.0", "26.0", "0.6"]


def test_what_is_counted_of_one_set_alone_needs_no_name() -> None:
    assert cells(comparison_table(entries([run("mine/all", "mine/fast")])), "ours")["counted"] == "4 clips, 28 frames"


def test_csv_has_a_row_for_each_figure() -> None:
    rows = list(csv.DictReader(StringIO(comparison_csv(entries([run("mine/all", "mine/fast")])))))
    assert [(row["clips_and_split"], row["psnr_y"], row["status"]) for row in rows] == [
        ("mine/all", "25.0", "measured"),
        ("mine/fast", "25.0", "measured"),
    ]
