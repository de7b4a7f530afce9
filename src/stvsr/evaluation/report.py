"""The report: one HTML file with tables, charts, pictures, a slider, space-time slices; it opens without a server.

Its template is `page/report.html.j2`; this module gathers the content from the folders of finished evaluations.
"""

import csv
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from stvsr.data.opencv import cv2
from stvsr.data.png import encode_png, png_size, read_png
from stvsr.errors import InvalidInput
from stvsr.evaluation.comparison import comparison_csv, comparison_table, entries
from stvsr.evaluation.parts import parts_table
from stvsr.evaluation.results import Results, read_results
from stvsr.evaluation.shown import PICTURES, SHOWN, ShownFrame, slices
from stvsr.evaluation.tables import Table, decimals
from stvsr.files import write_text

CROP = 64
"""Side of the enlarged square, HR pixels; at most half of a frame's shorter side."""

SLICE_HEIGHT = 140
"""Least height at which the true space-time slice is shown, screen pixels; two a frame if that is more."""

Frames = list[list[Any]]
"""For each frame that counts: its number, whether it was given (1 or 0), and its PSNR."""


@dataclass(frozen=True)
class Run:
    """A finished evaluation: its folder, its results, and what the report calls it."""

    folder: Path
    results: Results
    label: str


@dataclass(frozen=True)
class Pictures:
    """What a run kept of a clip: a folder of pictures, and the scores of the clip's frames."""

    label: str
    folder: Path
    frames: Frames

    def named(self, name: str) -> list[Path]:
        """The pictures of a kind, by number: `given-truth`, `slice-prediction`, …"""
        return sorted(self.folder.glob(f"{name}-*.png"))

    def size(self) -> tuple[int, int]:
        """Width and height of the frames, pixels."""
        return png_size(self.named("given-truth")[0])


def write_report(folder: Path, runs: list[Path]) -> Table:
    """Writes `report.html` and the comparison as `comparison.md`, `.csv` and `.tex`; each appears only when whole.

    Args:
        folder: where to write.
        runs: folders of finished evaluations.

    Returns:
        The comparison.

    Raises:
        InvalidInput: a folder holds no results, or damaged ones.
    """
    read = [(path, read_results(path)) for path in runs]
    labelled = [Run(path, results, label) for (path, results), label in zip(read, labels(read), strict=True)]
    # The comparison has a column for the protocol.
    counts = Counter((results.name, results.protocol.name) for _, results in read)
    compared = entries(
        replace(run.results, name=run.label) if counts[run.results.name, run.results.protocol.name] > 1 else run.results
        for run in labelled
    )
    table, parts = comparison_table(compared), parts_table(compared)
    written = {
        "comparison.md": f"{table.as_markdown()}\n{parts.as_markdown()}",
        "comparison.tex": f"{table.as_latex()}\n{parts.as_latex()}",
        "comparison.csv": comparison_csv(compared),
        "report.html": page(labelled, table, parts),
    }
    for name, content in written.items():
        write_text(folder / name, content)
    return table


def labels(runs: list[tuple[Path, Results]]) -> list[str]:
    """Unique names of the runs: the method's, and the protocol, the folder and a number where they are needed."""
    names = [results.name for _, results in runs]
    protocols = [results.protocol.name for _, results in runs]
    folders = [folder.name for folder, _ in runs]
    for additions in (protocols, folders):
        pairs = list(zip(names, additions, strict=True))
        different = Counter(name for name, _ in set(pairs))
        names = [f"{name}, {more}" if different[name] > 1 else name for name, more in pairs]
    # Folders may have the same name, or be the same.
    counts = Counter(names)
    return [f"{name} #{place}" if counts[name] > 1 else name for place, name in enumerate(names, start=1)]


def page(runs: list[Run], comparison: Table, parts: Table) -> str:
    """The HTML of the whole page."""
    environment = Environment(
        loader=PackageLoader("stvsr.evaluation", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    clips = clip_data(runs)
    shown, notes = shown_clips(runs, clips)
    return environment.get_template("report.html.j2").render(
        title="stvsr: " + ", ".join(run.label for run in runs),
        comparison=replace(comparison, notes=[*comparison.notes, *notes]),
        parts=parts,
        splits=[(run.label, run.results.table()) for run in runs],
        clips=clip_table(runs, list(clips.values())),
        shown=shown,
        data={"methods": [run.label for run in runs], "clips": list(clips.values())},
        version=version("stvsr"),
    )


def clip_data(runs: list[Run]) -> dict[tuple[str, str], dict[str, Any]]:
    """For each clip of any run, by set and name: its split and motion, and each run's PSNR and `Frames`, or None.

    Raises:
        InvalidInput: a table of a run was changed or cut off.
    """
    clips: dict[tuple[str, str], dict[str, Any]] = {}
    for column, run in enumerate(runs):
        try:
            _add_clips(clips, run.folder, column, len(runs))
        except (KeyError, TypeError, ValueError):
            raise InvalidInput(f"{run.folder}: clips.csv or frames.csv was changed; evaluate again") from None
    return clips


def _add_clips(clips: dict[tuple[str, str], dict[str, Any]], folder: Path, column: int, runs: int) -> None:
    """Adds the clips of one of several runs."""
    for row in _rows(folder / "clips.csv"):
        clip = clips.setdefault(
            (row["set"], row["clip"]),
            {
                "name": f"{row['set']}/{row['clip']}",
                "split": row["motion"],
                "pixels": _number(row["pixels"], 3),
                "psnr": [None] * runs,
                "frames": [None] * runs,
            },
        )
        # Runs with different thresholds may put it into different splits.
        if row["motion"] not in clip["split"].split(" / "):
            clip["split"] += f" / {row['motion']}"
        clip["psnr"][column] = _number(row["psnr_y"], 3)
        clip["frames"][column] = []
    for row in _rows(folder / "frames.csv"):
        frame = [int(row["frame"]), int(row["kind"] == "given"), _number(row["psnr_y"], 3)]
        clips[row["set"], row["clip"]]["frames"][column].append(frame)


def clip_table(runs: list[Run], clips: list[dict[str, Any]]) -> Table:
    """A row for each clip, a column for each method."""
    return Table(
        ["clip", "motion", "pixels a frame", *(f"PSNR Y {run.label}" for run in runs)],
        [
            [clip["name"], clip["split"], decimals(clip["pixels"], 2), *(decimals(psnr, 2) for psnr in clip["psnr"])]
            for clip in clips
        ],
        "; ".join(dict.fromkeys(str(run.results.protocol) for run in runs)),
        ["A dash: not scored, or infinite."],
    )


def shown_clips(
    runs: list[Run], clips: dict[tuple[str, str], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The clips of which any run kept pictures, with every run's; and a note on all pictures that cannot be shown."""
    kept = [picture_folders(run) for run in runs]
    shown, notes = [], list[str]()
    for key in dict.fromkeys(key for folders in kept for key in folders):
        run_data = zip(runs, kept, clips[key]["frames"], strict=True)
        pictures = [Pictures(run.label, folders[key], frames) for run, folders, frames in run_data if key in folders]
        same_size, omitted = of_one_size(clips[key]["name"], pictures)
        shown.append(_shown_clip(clips[key]["name"], same_size))
        notes += omitted
    return shown, notes


def of_one_size(name: str, every: list[Pictures]) -> tuple[list[Pictures], list[str]]:
    """The pictures as large as the first run's, whose truth is shown; and one note for each run that is left out."""
    sizes = [(pictures, pictures.size()) for pictures in every]
    first, shown = sizes[0]
    notes = [
        f"{pictures.label}: its pictures of {name} are not shown: {_dimensions(size)}, {first.label} has "
        f"{_dimensions(shown)}"
        for pictures, size in sizes
        if size != shown
    ]
    return [pictures for pictures, size in sizes if size == shown], notes


def picture_folders(run: Run) -> dict[tuple[str, str], Path]:
    """The folders of pictures of a run by set and clip."""
    folders = {
        (kept["set"], kept["clip"]): run.folder / PICTURES / kept["folder"]
        for kept in run.results.settings.get("pictures", [])
    }
    # There are none where the middle window was interrupted, or where somebody removed them.
    kinds = ("given-truth", "slice-truth", "slice-prediction")
    return {key: folder for key, folder in folders.items() if all(any(folder.glob(f"{kind}-*.png")) for kind in kinds)}


def _shown_clip(name: str, by_run: list[Pictures]) -> dict[str, Any]:
    """A clip: its frames and its slices, of every run; the truth is the first one's."""
    truth = slices(by_run[0].named("slice-truth"))
    over_time = [(pictures.label, slices(pictures.named("slice-prediction"))) for pictures in by_run]
    return {
        "name": name,
        "groups": [_group(frame, by_run) for frame in SHOWN],
        # A protocol may count fewer frames, at the end: a frame is as high in all slices.
        "slices": [
            {
                "caption": caption,
                "source": _data_uri(encode_png(pixels)),
                "height": round(max(SLICE_HEIGHT, 2 * truth.shape[1]) * pixels.shape[1] / truth.shape[1]),
            }
            for caption, pixels in [*over_time, ("ground truth", truth)]
        ],
    }


def _group(shown: ShownFrame, by_run: list[Pictures]) -> dict[str, Any]:
    """The panels of one frame: input, every method with its PSNR, truth."""
    truth = by_run[0].named(f"{shown.kind}-truth")[0]
    number = truth.stem.rsplit("-", 1)[1]
    source = truth.with_name(f"{shown.kind}-input-{number}.png")
    panels = [{"caption": shown.input_name, "source": _embed(source), "role": "input"}]
    # Runs by another protocol may show another frame.
    predictions = [(pictures, pictures.folder / f"{shown.kind}-prediction-{number}.png") for pictures in by_run]
    present = [(pictures, path) for pictures, path in predictions if path.is_file()]
    for pictures, path in present:
        psnr = next((psnr for n, _, psnr in pictures.frames if n == int(number)), None)
        caption = f"{pictures.label}, {decimals(psnr, 2)} dB"
        panels.append({"caption": caption, "source": _embed(path), "role": "method"})
    panels.append({"caption": "ground truth", "source": _embed(truth), "role": "truth"})
    return {
        "kind": shown.kind,
        "number": int(number),
        "panels": panels,
        "crop": chosen_crop(truth, [path for _, path in present]),
        "width": png_size(truth)[0],
    }


def chosen_crop(truth: Path, predictions: list[Path]) -> tuple[int, int, int]:
    """Left, top and side of the square in which the predictions are furthest from the truth."""
    target = read_png(truth).numpy().astype(np.float32)
    h, w = target.shape[-2:]
    side = min(CROP, h // 2, w // 2)
    error = sum((np.abs(read_png(path).numpy() - target).mean(0) for path in predictions), np.zeros((h, w), np.float32))
    # With anchor (0, 0), a pixel has the sum of the square whose top left it is.
    sums = cv2.boxFilter(error, -1, (side, side), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)
    top, left = np.unravel_index(np.argmax(sums[: h - side + 1, : w - side + 1]), (h - side + 1, w - side + 1))
    return int(left), int(top), side


def _dimensions(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


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
