"""Ablations compared: means and ranges over seeds, and orderings that are claimed only where seeds agree."""

from dataclasses import replace
from pathlib import Path

import pytest

from stvsr.evaluation.ablations import TrainedRun, curve_figure, ordering_table, score_table, training_table
from stvsr.evaluation.costs import Cost
from stvsr.evaluation.figures import save_figure
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.results import Results
from stvsr.evaluation.rows import Row
from stvsr.evaluation.tables import Table


def scored(name: str, **psnr: float) -> Results:
    """Results with this PSNR by split: 1 dB more for given frames, 1 dB less for synthesised ones."""
    rows = [
        Row("videos", motion, 2, 14, 0, 0, "", {
            **{f"psnr_y{part}": value + more for part, more in (("", 0), ("_given", 1), ("_synthesised", -1))},
            **{f"ssim_y{part}": value / 100 for part in ("", "_given", "_synthesised")},
        })
        for motion, value in psnr.items()
    ]  # fmt: skip
    return Results(name, Protocol("paper", True, False), Cost(parameters=1000), rows, {}, {})


def run(ablation: str, seed: int, **psnr: float) -> TrainedRun:
    curve = [(100 * i, 20.0 + i) for i in range(1, 5)]
    return TrainedRun(ablation, seed, scored(ablation, **psnr), curve, 1.5)


def row(table: Table, *start: str) -> list[str]:
    (found,) = (list(row) for row in table.rows if tuple(row[: len(start)]) == start)
    return found[len(start) :]


def test_scores_are_means_over_seeds_with_half_their_range() -> None:
    runs = [run("b", 1, slow=30.0, all=25.0), run("a", 1, slow=28.0, all=24.0), run("a", 2, slow=29.0, all=24.5)]
    table = score_table("videos", runs, scored("bicubic_blend", slow=27.0, all=23.0))
    assert [cells[0] for cells in table.rows[::3]] == ["bicubic_blend", "(a)", "(b)"]
    assert row(table, "(a)", "all") == ["28.50 ± 0.50", "-", "-", "24.25 ± 0.25", "0.2425 ± 0.0025"]
    assert row(table, "(a)", "given")[0] == "29.50 ± 0.50"
    assert row(table, "(b)", "synthesised") == ["29.00", "-", "-", "24.00", "0.2500"]
    assert "2 slow (14 frames), 2 all (14 frames)" in table.caption


@pytest.mark.parametrize(
    ("of_a", "of_b", "verdict"),
    [
        ((24.0, 24.5), (25.0, 25.4), "yes"),
        ((24.0, 24.5), (23.0, 23.6), "no"),
        ((24.0, 24.5), (25.0, 24.6), "unclear"),
        ((24.0, 24.5), (25.0, 24.4), "unclear"),
        ((24.0, 24.5), (24.2, 24.8), "yes"),
        ((24.0, 24.5), (24.1, 24.9), "unclear"),
        ((24.0, 24.5, 24.2), (24.2, 24.8, 24.45), "yes"),
        ((24.0,), (25.0,), "unclear"),
        ((24.0, 24.5), (24.004, 24.504), "unclear"),
    ],
)
def test_an_ordering_is_reproduced_or_not_where_leads_are_larger_than_what_seeds_change(
    of_a: tuple[float, ...], of_b: tuple[float, ...], verdict: str
) -> None:
    runs = [run("a", seed, all=psnr) for seed, psnr in enumerate(of_a)]
    runs += [run("b", seed, all=psnr) for seed, psnr in enumerate(of_b)]
    leads = ", ".join(f"{b - a:+.2f}" for a, b in zip(of_a, of_b, strict=True))
    assert [list(cells) for cells in ordering_table(runs).rows] == [
        ["(b) > (a)", "videos", "all", frames, leads, verdict] for frames in ("all", "synthesised")
    ]


def test_a_lead_stands_in_the_place_of_its_seed_and_a_missing_one_is_a_dash_that_does_not_count() -> None:
    runs = [run("a", seed, all=24.0) for seed in (1, 2, 3)] + [run("b", 3, all=24.3), run("b", 1, all=24.25)]
    table = ordering_table(runs)
    assert row(table, "(b) > (a)", "videos", "all", "all") == ["+0.25, -, +0.30", "yes"]
    assert "for seeds 1, 2, 3 (a dash: no such runs)" in table.caption


def test_means_over_other_clips_are_told_and_not_compared() -> None:
    """A network that predicts a frame exactly has an infinite score there, and the clip is left out."""
    runs = [run("a", 1, slow=30.0, all=25.0), run("b", 1, slow=31.0, all=26.0), run("d", 1, slow=32.0, all=27.0)]
    runs[0].results.left_out["videos/fade"] = "infinite PSNR"
    runs[0].results.left_out["synthetic/scene"] = "infinite PSNR"
    assert [row[0] for row in ordering_table(runs).rows] == ["(d) > (b)"] * 2
    notes = score_table("videos", runs, scored("bicubic_blend", slow=27.0, all=23.0)).notes
    assert list(notes) == ["(a), seed 1: left out videos/fade"]


def test_the_plain_convlstm_leads_on_slow_and_trails_on_fast_clips_as_in_the_paper() -> None:
    runs = [run("b", seed, slow=30.0, fast=20.0) for seed in (1, 2)]
    runs += [run("c", seed, slow=30.5, fast=19.0) for seed in (1, 2)]
    table = ordering_table(runs)
    assert row(table, "(c) > (b)", "videos", "slow", "all") == ["+0.50, +0.50", "yes"]
    assert row(table, "(b) > (c)", "videos", "fast", "all") == ["+1.00, +1.00", "yes"]


def test_what_the_last_quarter_brought_tells_how_far_from_flat_a_curve_ends() -> None:
    assert row(training_table([run("a", 1, all=24.0)]), "(a), seed 1") == ["1,000", "400", "1.5", "24.00", "1.00"]


def test_a_run_that_was_never_validated_has_a_row_without_scores() -> None:
    """A run with fewer steps than the validation interval is one."""
    never = replace(run("a", 1, all=24.0), curve=[])
    assert row(training_table([never]), "(a), seed 1") == ["1,000", "-", "1.5", "-", "-"]


def test_minutes_that_were_not_measured_are_a_dash() -> None:
    unmeasured = replace(run("a", 1, all=24.0), minutes=None)
    assert row(training_table([unmeasured]), "(a), seed 1")[2] == "-"


def test_curves_are_drawn_for_every_run(tmp_path: Path) -> None:
    drawing = curve_figure([run("b", 1), run("a", 1), run("a", 2)])
    (axis,) = drawing.axes
    assert [line.get_color() for line in axis.get_lines()] == ["C0", "C0", "C1"]
    assert [line.get_alpha() for line in axis.get_lines()] == [1.0, 0.5, 1.0], "further seeds are pale"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["(a)", "(b)"]
    save_figure(drawing, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
