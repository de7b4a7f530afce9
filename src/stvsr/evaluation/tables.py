"""Scores as tables: what was measured, per motion split, for people and for programs."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from statistics import fmean

from stvsr.evaluation.scores import SPLITS, ClipScore
from stvsr.files import beside_then_rename

PROTOCOL = "Y of BT.601, 8 bit, uncropped; mean over all frames of a clip, then over clips"


@dataclass(frozen=True)
class Row:
    """Scores of one motion split, or their mean (each split weighs the same); PSNR in dB."""

    name: str
    clips: int
    frames: int
    left_out: int
    psnr_y: float
    ssim_y: float
    psnr_y_given: float
    psnr_y_synthesised: float


SCORES = ("psnr_y", "ssim_y", "psnr_y_given", "psnr_y_synthesised")


def summarise(scores: list[ClipScore]) -> list[Row]:
    """A row for each split that occurs and, where there are several, one for their mean.

    Clips with infinite PSNR are left out of the means and counted in `left_out`.
    """
    rows = []
    for split in SPLITS:
        clips = [score for score in scores if score.motion == split]
        counted = [score for score in clips if isfinite(score.psnr_y)]
        if counted:
            means = [fmean(getattr(score, field) for score in counted) for field in SCORES]
            frames = sum(score.frames for score in counted)
            rows.append(Row(split, len(counted), frames, len(clips) - len(counted), *means))
    if len(rows) > 1:
        counts = [sum(getattr(row, field) for row in rows) for field in ("clips", "frames", "left_out")]
        rows.append(Row("mean", *counts, *(fmean(getattr(row, field) for row in rows) for field in SCORES)))
    return rows


def as_text(rows: list[Row]) -> str:
    """The rows as a table for a terminal."""
    lines = [
        f"{'motion':<8}{'clips':>6}{'frames':>8}{'PSNR Y':>9}{'SSIM Y':>9}{'given':>9}{'synthesised':>13}",
    ]
    lines += [
        f"{row.name:<8}{row.clips:>6}{row.frames:>8}{row.psnr_y:>9.2f}{row.ssim_y:>9.4f}"
        f"{row.psnr_y_given:>9.2f}{row.psnr_y_synthesised:>13.2f}"
        for row in rows
    ]
    left_out = sum(row.left_out for row in rows if row.name != "mean")
    if left_out:
        lines.append(f"left out: {left_out} clip(s) with infinite PSNR")
    return "\n".join([*lines, f"({PROTOCOL})"])


def write_results(folder: Path, rows: list[Row], scores: list[ClipScore]) -> None:
    """Writes `results.json`, `results.csv` and `clips.csv`; each appears only when whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with beside_then_rename(folder / "results.json") as path:
        path.write_text(json.dumps({"protocol": PROTOCOL, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    _write_csv(folder / "results.csv", [field.name for field in fields(Row)], (asdict(row) for row in rows))
    _write_csv(folder / "clips.csv", [field.name for field in fields(ClipScore)], (asdict(clip) for clip in scores))


def _write_csv(path: Path, columns: list[str], rows: Iterable[Mapping[str, object]]) -> None:
    with beside_then_rename(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
