"""One file to look at: tables, charts, pictures, a slider, space-time slices; opens without a server.

The page is `page/report.html.j2`; this file gathers what stands in it from the folders of finished evaluations.
"""

import csv
import json
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from stvsr.data.png import encode_png, read_png
from stvsr.evaluation.comparison import comparison_csv, comparison_table, entries
from stvsr.evaluation.results import Results, read_results
from stvsr.evaluation.shown import slices
from stvsr.evaluation.tables import Table, figure
from stvsr.files import write_text

CROP = 64
"""Side of the enlarged square, HR pixels; less in frames of fewer than twice as many."""

SLICE_HEIGHT = 140
"""Height at which a space-time slice of few frames is shown, screen pixels."""

INPUTS = {"given": "LR input", "synthesised": "overlaid LR inputs"}


@dataclass(frozen=True)
class Run:
    """A finished evaluation: its folder, its results, and what the report calls it."""

    folder: Path
    results: Results
    label: str


def write_report(folder: Path, runs: list[Path]) -> Table:
    """Writes `report.html` and the comparison as `comparison.md`, `.csv` and `.tex`; each appears only when whole.

    Args:
        folder: where to write.
        runs: folders of finished evaluations.

    Returns:
        The comparison.

    Raises:
        InvalidInput: a folder holds no results.
    """
    read = [(path, read_results(path)) for path in runs]
    labelled = [Run(path, results, label) for (path, results), label in zip(read, labels(read), strict=True)]
    # The protocol has a column of its own there.
    counts = Counter((results.name, results.protocol.name) for _, results in read)
    compared = entries(
        replace(run.results, name=run.label) if counts[run.results.name, run.results.protocol.name] > 1 else run.results
        for run in labelled
    )
    table = comparison_table(compared)
    written = {
        "comparison.md": table.as_markdown(),
        "comparison.tex": table.as_latex(),
        "comparison.csv": comparison_csv(compared),
        "report.html": page(labelled, table),
    }
    for name, content in written.items():
        write_text(folder / name, content)
    return table


def labels(runs: list[tuple[Path, Results]]) -> list[str]:
    """Names of the methods; the protocol is added where one was scored by several, then the folder."""
    names = [results.name for _, results in runs]
    protocols = [results.protocol.name for _, results in runs]
    folders = [folder.name for folder, _ in runs]
    for additions in (protocols, folders):
        kinds: dict[str, set[str]] = {}
        for name, more in zip(names, additions, strict=True):
            kinds.setdefault(name, set()).add(more)
        names = [
            f"{name}, {more}" if len(kinds[name]) > 1 else name for name, more in zip(names, additions, strict=True)
        ]
    # Folders may be called alike, or be the same.
    counts = Counter(names)
    return [f"{name} #{place}" if counts[name] > 1 else name for place, name in enumerate(names, start=1)]


def page(runs: list[Run], comparison: Table) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("stvsr.evaluation", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    clips = clip_data(runs)
    assets = files("stvsr.evaluation") / "page"
    # In a script element only these characters could end it early.
    data = json.dumps({"methods": [run.label for run in runs], "clips": clips}, separators=(",", ":"))
    data = data.replace("<", "\\u003c")
    return environment.get_template("report.html.j2").render(
        title="stvsr: " + ", ".join(run.label for run in runs),
        comparison=comparison,
        splits=[(run.label, run.results.table()) for run in runs],
        clips=clip_table(runs, clips),
        shown=shown_clips(runs, clips),
        data=data,
        version=version("stvsr"),
        style=(assets / "report.css").read_text(encoding="utf-8"),
        script=(assets / "report.js").read_text(encoding="utf-8"),
    )


def clip_data(runs: list[Run]) -> list[dict[str, Any]]:
    """For each clip of any run its motion, and for each run its PSNR and its frames `[number, given, PSNR]`."""
    clips: dict[tuple[str, str], dict[str, Any]] = {}
    for place, run in enumerate(runs):
        for row in _rows(run.folder / "clips.csv"):
            clip = clips.setdefault(
                (row["set"], row["clip"]),
                {
                    "name": f"{row['set']}/{row['clip']}",
                    "clip": row["clip"],
                    "split": row["motion"],
                    "pixels": _number(row["pixels"], 3),
                    "psnr": [None] * len(runs),
                    "frames": [None] * len(runs),
                },
            )
            clip["psnr"][place] = _number(row.get("psnr_y", ""), 3)
            clip["frames"][place] = []
        for row in _rows(run.folder / "frames.csv"):
            frame = [int(row["frame"]), int(row["kind"] == "given"), _number(row["psnr_y"], 3)]
            clips[row["set"], row["clip"]]["frames"][place].append(frame)
    return list(clips.values())


def clip_table(runs: list[Run], clips: list[dict[str, Any]]) -> Table:
    """A row for each clip, a column for each method."""
    return Table(
        ["clip", "motion", "pixels a frame", *(f"PSNR Y {run.label}" for run in runs)],
        [
            [clip["name"], clip["split"], figure(clip["pixels"], 2), *(figure(psnr, 2) for psnr in clip["psnr"])]
            for clip in clips
        ],
        "; ".join(dict.fromkeys(str(run.results.protocol) for run in runs)),
        ["A dash: not scored, or infinite."],
    )


def shown_clips(runs: list[Run], clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The clips of which the first run kept pictures, with those of every run."""
    shown = []
    # Folders have the set's name where there are several.
    several = len({row.clip_set for row in runs[0].results.rows}) > 1
    frames_of = {clip["name" if several else "clip"]: clip["frames"] for clip in clips if clip["frames"][0] is not None}
    root = runs[0].folder / "pictures"
    for found in sorted(root.rglob("given-truth-*.png")):
        clip = found.parent.relative_to(root)
        folders = {run.label: run.folder / "pictures" / clip for run in runs}
        groups = [_group(kind, folders, frames_of[clip.as_posix()]) for kind in INPUTS]
        truth, predictions = (
            {label: sorted(path.glob(f"slice-{name}-*.png")) for label, path in folders.items()}
            for name in ("truth", "prediction")
        )
        over_time = [{"caption": label, "source": _slice(paths)} for label, paths in predictions.items() if paths]
        over_time.append({"caption": "ground truth", "source": _slice(truth[runs[0].label])})
        frames = slices(truth[runs[0].label]).shape[1]
        shown.append(
            {
                "name": clip.as_posix(),
                "groups": groups,
                "slices": over_time,
                "slice_height": max(SLICE_HEIGHT, 2 * frames),
            }
        )
    return shown


def _group(kind: str, folders: dict[str, Path], frames: list[list[Any] | None]) -> dict[str, Any]:
    """The panels of one frame: input, every method with its PSNR, truth."""
    first = next(iter(folders.values()))
    truth = next(first.glob(f"{kind}-truth-*.png"))
    number = truth.stem.rsplit("-", 1)[1]
    predictions = {label: folder / f"{kind}-prediction-{number}.png" for label, folder in folders.items()}
    present = {label: path for label, path in predictions.items() if path.is_file()}
    panels = [{"caption": INPUTS[kind], "source": _embed(first / f"{kind}-input-{number}.png"), "role": "input"}]
    for label, scored in zip(folders, frames, strict=True):
        if label in present:
            psnr = next((psnr for n, _, psnr in scored or [] if n == int(number)), None)
            caption = f"{label}, {figure(psnr, 2)} dB"
            panels.append({"caption": caption, "source": _embed(present[label]), "role": "method"})
    panels.append({"caption": "ground truth", "source": _embed(truth), "role": "truth"})
    return {
        "kind": kind,
        "number": int(number),
        "panels": panels,
        "crop": chosen_crop(truth, list(present.values())),
        "width": read_png(truth).shape[-1],
    }


def chosen_crop(truth: Path, predictions: list[Path]) -> tuple[int, int, int]:
    """Left, top and side of the square in which the predictions are furthest from the truth."""
    target = read_png(truth).numpy().astype(np.float32)
    h, w = target.shape[-2:]
    side = min(CROP, h // 2, w // 2)
    error = sum((np.abs(read_png(path).numpy() - target).mean(0) for path in predictions), np.zeros((h, w), np.float32))
    # anchor (0, 0): the sum at a pixel is that of the square to its right and below.
    sums = cv2.boxFilter(error, -1, (side, side), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)
    top, left = np.unravel_index(np.argmax(sums[: h - side + 1, : w - side + 1]), (h - side + 1, w - side + 1))
    return int(left), int(top), side


def _slice(paths: list[Path]) -> str:
    return _data_uri(encode_png(slices(paths)))


def _embed(path: Path) -> str:
    return _data_uri(path.read_bytes())


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(cell: str, digits: int) -> float | None:
    value = float(cell) if cell else float("nan")
    return round(value, digits) if isfinite(value) else None
