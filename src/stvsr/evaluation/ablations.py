"""The ablations against each other: scores over several seeds, the paper's orderings, curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

from matplotlib.figure import Figure

from stvsr.data.clip import SPLITS, UNSPLIT
from stvsr.errors import listed
from stvsr.evaluation.results import Results
from stvsr.evaluation.scores import ALL_FRAMES, PART_NAMES, PARTS, SYNTHESISED_FRAMES
from stvsr.evaluation.tables import NOTHING, Table, decimals

ORDERINGS = (
    ("b", "a", UNSPLIT),
    ("d", "b", UNSPLIT),
    ("d", "c", UNSPLIT),
    ("e", "d", UNSPLIT),
    ("c", "b", "slow"),
    ("b", "c", "fast"),
)
"""Orderings in the paper's Table 2 (Sec. 4.3): the ablation with the higher PSNR, the other one, the motion split."""

SMALLEST_LEAD = 0.005
"""dB; a smaller lead is printed as 0.00."""

COMPARED = (ALL_FRAMES, SYNTHESISED_FRAMES)
"""All frames, as in the paper, and the synthesised ones alone, which (b) makes differently from (a)."""


@dataclass(frozen=True)
class TrainedRun:
    """An ablation, trained from one seed.

    Attributes:
        ablation: its letter.
        seed: of the run.
        results: its scores.
        curve: for each validation, the steps done and the PSNR in dB.
        minutes: training time without validation; None where it was not measured.
    """

    ablation: str
    seed: int
    results: Results
    curve: list[tuple[int, float]]
    minutes: float | None


def score_table(clip_set: str, runs: Sequence[TrainedRun], baseline: Results) -> Table:
    """PSNR and SSIM on one clip set for each ablation, overall and for given and synthesised frames separately.

    Args:
        clip_set: its name.
        runs: of all ablations and seeds.
        baseline: results of an untrained method.
    """
    methods = {baseline.name: [baseline]}
    for run in sorted(runs, key=lambda run: run.ablation):
        methods.setdefault(f"({run.ablation})", []).append(run.results)
    rows = []
    for (method, results), part in product(methods.items(), PARTS):
        cells = [_spread(results, clip_set, split, f"psnr_y{part}", 2) for split in SPLITS]
        rows.append([method, PART_NAMES[part], *cells, _spread(results, clip_set, UNSPLIT, f"ssim_y{part}", 4)])
    seeds = len({run.seed for run in runs})
    counted = [f"{row.clips} {row.motion} ({row.frames} frames)" for row in baseline.rows if row.clip_set == clip_set]
    return Table(
        ["method", "frames", *(f"PSNR Y {split}" for split in SPLITS), "SSIM Y all"],
        rows,
        f"{clip_set}, clips: {', '.join(counted)}; mean over up to {seeds} seed(s) ± half of their range; "
        f"{baseline.protocol}",
        [*baseline.omissions(), *_other_clips(clip_set, runs, baseline)],
    )


def ordering_table(runs: Sequence[TrainedRun]) -> Table:
    """Whether runs reproduce the paper's orderings: by how much PSNR one ablation leads another, for each seed."""
    results_of = {(run.ablation, run.seed): run.results for run in runs}
    seeds = sorted({run.seed for run in runs})
    sets = dict.fromkeys(row.clip_set for run in runs for row in run.results.rows)
    rows = []
    for (better, worse, split), clip_set, part in product(ORDERINGS, sets, COMPARED):
        leads = list[float | None]()
        for seed in seeds:
            compared = [results_of[letter, seed] for letter in (better, worse) if (letter, seed) in results_of]
            maybe_scores = (_score(results, clip_set, split, f"psnr_y{part}") for results in compared)
            scores = [score for score in maybe_scores if score is not None]
            # Means over different clips are not comparable: one network may make a black frame exactly, one nearly.
            compare = len(scores) == 2 and _left_out(compared[0], clip_set) == _left_out(compared[1], clip_set)
            leads.append(scores[0] - scores[1] if compare else None)
        if known := [lead for lead in leads if lead is not None]:
            by_seed = ", ".join(NOTHING if lead is None else f"{lead:+.2f}" for lead in leads)
            rows.append([f"({better}) > ({worse})", clip_set, split, PART_NAMES[part], by_seed, _verdict(known)])
    return Table(
        ["ordering", "clips", "motion", "frames", "lead in dB, by seed", "reproduced"],
        rows,
        f"by PSNR Y, of runs over the same clips, for seeds {', '.join(map(str, seeds))} (a dash: no such runs); "
        "'unclear' with fewer than two leads, or where their mean is not larger than their range, or reads 0.00",
    )


def curve_figure(runs: Sequence[TrainedRun]) -> Figure:
    """Validation PSNR over steps, a colour for each ablation, a line for each seed."""
    drawing = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    axis = drawing.subplots()
    letters = sorted({run.ablation for run in runs})
    for run in sorted(runs, key=lambda run: run.ablation):
        first = run.seed == min(other.seed for other in runs if other.ablation == run.ablation)
        axis.plot(
            [step for step, _ in run.curve],
            [psnr for _, psnr in run.curve],
            color=f"C{letters.index(run.ablation)}",
            alpha=1.0 if first else 0.5,
            label=f"({run.ablation})" if first else None,
        )
    axis.set_xlabel("steps")
    axis.set_ylabel("validation PSNR Y, dB")
    axis.grid(alpha=0.3)
    axis.legend()
    return drawing


def run_name(seed: int, ablation: str) -> str:
    """The name of a training run in tables and messages."""
    return f"({ablation}), seed {seed}"


def training_table(runs: Sequence[TrainedRun]) -> Table:
    """The duration, the last validation score and the gain of the last quarter of each training run."""
    rows = []
    for run in sorted(runs, key=lambda run: (run.ablation, run.seed)):
        # A run shorter than the validation interval has no curve.
        steps, end = run.curve[-1] if run.curve else (0, None)
        last_quarter = [psnr for step, psnr in run.curve if 4 * step >= 3 * steps]
        gained = decimals(last_quarter[-1] - last_quarter[0], 2) if len(last_quarter) > 1 else NOTHING
        parameters = f"{run.results.cost.parameters:,}" if run.results.cost.parameters else NOTHING
        name = run_name(run.seed, run.ablation)
        rows.append(
            [name, parameters, str(steps) if run.curve else NOTHING, decimals(run.minutes, 1), decimals(end, 2), gained]
        )
    columns = ["run", "parameters", "validated at step", "minutes", "PSNR Y there", "gain in the last quarter, dB"]
    return Table(columns, rows, "last validation: seven frames of each video; minutes of training without validation")


def _verdict(leads: Sequence[float]) -> str:
    # One seed says nothing about chance, and two agree in sign half of the time by chance.
    if len(leads) < 2 or abs(fmean(leads)) <= max(SMALLEST_LEAD, max(leads) - min(leads)):
        return "unclear"
    return "yes" if fmean(leads) > 0 else "no"


def _spread(results: Sequence[Results], clip_set: str, split: str, name: str, digits: int) -> str:
    maybe_scores = [_score(result, clip_set, split, name) for result in results]
    values = [value for value in maybe_scores if value is not None]
    if not values:
        return NOTHING
    mean = decimals(fmean(values), digits)
    return f"{mean} ± {decimals((max(values) - min(values)) / 2, digits)}" if len(values) > 1 else mean


def _other_clips(clip_set: str, runs: Sequence[TrainedRun], baseline: Results) -> list[str]:
    """One line for each run whose means are over other clips than the baseline's."""
    usual = _left_out(baseline, clip_set)
    return [
        f"{run_name(run.seed, run.ablation)}: left out {listed(sorted(left_out)) or 'none'}"
        for run in runs
        if (left_out := _left_out(run.results, clip_set)) != usual
    ]


def _left_out(results: Results, clip_set: str) -> set[str]:
    """The clips of a set that count in no mean."""
    return {clip for clip in results.left_out if clip.startswith(f"{clip_set}/")}


def _score(results: Results, clip_set: str, split: str, name: str) -> float | None:
    return next((row.scores[name] for row in results.rows if (row.clip_set, row.motion) == (clip_set, split)), None)
