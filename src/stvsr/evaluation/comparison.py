"""Several methods in one table, in the layout of the paper's Table 1, with the published rows beside ours.

Published rows are printed only where a run scored the same clips, and are marked. Those of Table 2 were not found in a
readable source and are marked as remembered. `published.csv` holds them all, as PSNR/SSIM on Y.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from stvsr.data.clip import UNSPLIT
from stvsr.evaluation.results import Results
from stvsr.evaluation.tables import NOTHING, Table, as_csv, figure

ORDER = ("fast", "medium", "slow", UNSPLIT)
"""The columns of a clip set, as in the paper."""

OURS = "measured"

PUBLISHED_CLIPS = {"Vid4/all": 4, "Vimeo-90K/fast": 1225, "Vimeo-90K/medium": 4977, "Vimeo-90K/slow": 1613}
"""How many clips the published figures are of; they stand beside ours only for as many."""


@dataclass(frozen=True)
class Entry:
    """A method in a comparison.

    Attributes:
        method: its name.
        protocol: the name of the protocol it was scored by.
        status: measured (by this program), published, or as remembered.
        counted: clips and frames that counted.
        scores: PSNR and SSIM on Y by clip set and split, such as `Vid4/all`; either may be None.
        parameters: millions.
        multiply_adds: for each output frame, 10^9.
        seconds_per_frame: of the network.
        device: that took them.
        peak_memory: MiB.
        omissions: what was left out of the rows of whole sets, and why.
        stages: parameters (millions) and seconds of each stage, of a method of several.
        notes: what else a reader must know of the method.
    """

    method: str
    protocol: str
    status: str
    counted: str
    scores: dict[str, tuple[float | None, float | None]]
    parameters: float | None
    multiply_adds: float | None
    seconds_per_frame: float | None
    device: str | None
    peak_memory: float | None
    omissions: Sequence[str] = ()
    stages: Sequence[tuple[float, float | None]] = ()
    notes: Sequence[str] = ()


def entries(runs: Iterable[Results]) -> list[Entry]:
    """The published methods that were scored on the same clips, then ours."""
    runs = list(runs)
    rows = (row for run in runs for row in run.rows)
    same = {row.name for row in rows if row.clips + row.clips_left_out == PUBLISHED_CLIPS.get(row.name)}
    theirs = []
    for entry in published():
        scores = {column: pair for column, pair in entry.scores.items() if column in same}
        if scores:
            theirs.append(replace(entry, scores=scores))
    return theirs + [_measured(run) for run in runs]


def comparison_table(compared: list[Entry]) -> Table:
    """PSNR / SSIM for each clip set and split, with costs, a row for each method."""
    measured = [entry for entry in compared if entry.status == OURS]
    columns = list(dict.fromkeys(column for entry in measured for column in entry.scores))
    sets = list(dict.fromkeys(column.rsplit("/", 1)[0] for column in columns))
    columns.sort(key=lambda name: (sets.index(name.rsplit("/", 1)[0]), ORDER.index(name.rsplit("/", 1)[1])))
    heads = [column.replace("/", " ") for column in columns]
    rows = [
        [
            entry.method,
            entry.status,
            entry.protocol,
            entry.counted,
            *(_pair(entry.scores.get(column, (None, None))) for column in columns),
            _split(entry.parameters, [parameters for parameters, _ in entry.stages], 2),
            figure(entry.multiply_adds, 1),
            _split(entry.seconds_per_frame, [seconds for _, seconds in entry.stages], 4),
            figure(entry.peak_memory, 0),
        ]
        for entry in compared
    ]
    devices = dict.fromkeys(entry.device for entry in measured if entry.device)
    notes = [f"Seconds measured on: {'; '.join(devices)}."] if devices else []
    # Several systems share a network.
    notes += dict.fromkeys(note for entry in measured for note in entry.notes)
    notes += [f"{entry.method}, protocol {entry.protocol}: {line}" for entry in measured for line in entry.omissions]
    if len(measured) < len(compared):
        notes.append("Seconds of published rows: one Titan XP, the whole of Vid4.")
    return Table(
        ["method", "figures", "protocol", "counted", *heads, "M param.", "G mult.-adds", "s a frame", "MiB"],
        rows,
        "PSNR / SSIM on Y of BT.601, 8 bit, uncropped; multiply-adds and seconds for each output frame",
        notes,
    )


def comparison_csv(compared: list[Entry]) -> str:
    """A row for each method, clip set and split."""
    columns = ["method", "status", "protocol", "clips_and_split", "psnr_y", "ssim_y", "parameters_million"]
    columns += ["multiply_adds_billion", "seconds_per_frame", "device", "peak_memory_mib"]
    rows = [
        [
            *(entry.method, entry.status, entry.protocol, column, *scores),
            *(entry.parameters, entry.multiply_adds, entry.seconds_per_frame, entry.device, entry.peak_memory),
        ]
        for entry in compared
        for column, scores in entry.scores.items()
    ]
    return as_csv(columns, rows)


def published() -> list[Entry]:
    """Table 1 of the paper, what is remembered of Table 2, and later methods."""
    text = (files("stvsr.evaluation") / "published.csv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        scores = {column: _parse(cell) for column, cell in row.items() if "/" in column and cell}
        seconds = float(row["seconds_per_frame"]) if row["seconds_per_frame"] else None
        parameters = float(row["parameters"]) if row["parameters"] else None
        found.append(
            Entry(
                method=row["method"],
                protocol=row["protocol"],
                status=row["status"],
                counted=NOTHING,
                scores=scores,
                parameters=parameters,
                multiply_adds=None,
                seconds_per_frame=seconds,
                device=None,
                peak_memory=None,
            )
        )
    return found


def _measured(run: Results) -> Entry:
    cost = run.cost
    whole = [row for row in run.rows if row.motion == UNSPLIT]
    clips, frames = sum(row.clips for row in whole), sum(row.frames for row in whole)
    return Entry(
        method=run.name,
        protocol=run.protocol.name,
        status=OURS,
        counted=f"{clips} clips, {frames} frames",
        scores={row.name: (row.scores["psnr_y"], row.scores["ssim_y"]) for row in run.rows},
        parameters=None if cost.parameters is None else cost.parameters / 1e6,
        multiply_adds=None if cost.multiply_adds is None else cost.multiply_adds / 1e9,
        seconds_per_frame=cost.seconds_per_frame,
        device=cost.device,
        peak_memory=cost.peak_memory,
        stages=[(stage.parameters / 1e6, stage.seconds_per_frame) for stage in cost.stages],
        notes=run.notes,
        omissions=[f"left out of {row.name}: {row.left_out}" for row in whole if row.left_out],
    )


def _split(whole: float | None, stages: Sequence[float | None], digits: int) -> str:
    """A figure, and in brackets what each stage has of it."""
    parts = f" ({' + '.join(figure(stage, digits) for stage in stages)})" if stages else ""
    return figure(whole, digits) + parts


def _pair(scores: tuple[float | None, float | None]) -> str:
    psnr, ssim = scores
    return NOTHING if psnr is None else f"{psnr:.2f} / {figure(ssim, 4)}"


def _parse(cell: str) -> tuple[float | None, float | None]:
    psnr, ssim = cell.split("/")
    return float(psnr), float(ssim) if ssim else None
