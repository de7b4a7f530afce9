"""Several methods in one table, in the layout of the paper's Table 1, with the published rows beside ours.

Published rows are marked as such, and printed only where a run scored as many clips of a set of that name. Those of
Table 2 were not found in a readable source and are marked as remembered. `published.csv` holds them all, as PSNR/SSIM
on Y. Where clip sets of one name consist of different data in different runs, a note says what differs.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files

from stvsr.data.clip import UNSPLIT
from stvsr.errors import listed
from stvsr.evaluation.conditions import conditions
from stvsr.evaluation.costs import Cost
from stvsr.evaluation.metrics import METRICS
from stvsr.evaluation.results import Results
from stvsr.evaluation.rows import Row
from stvsr.evaluation.scores import PARTS
from stvsr.evaluation.tables import NOTHING, Table, as_csv, decimals, with_parts

ORDER = ("fast", "medium", "slow", UNSPLIT)
"""The order of a clip set's columns, as in the paper."""

OURS = "measured"

PUBLISHED_CLIPS = {"Vid4/all": 4, "Vimeo-90K/fast": 1225, "Vimeo-90K/medium": 4977, "Vimeo-90K/slow": 1613}
"""How many clips each published figure covers; it is shown only beside scores of as many."""


@dataclass(frozen=True)
class Entry:
    """A method in a comparison.

    Attributes:
        method: its name.
        protocol: the name of the protocol it was scored by.
        status: measured (by this program), published, or as remembered.
        counted: clips and frames that counted, set by set.
        scores: PSNR and SSIM on Y by clip set and split, such as `Vid4/all`; either may be None.
        cost: as far as it is known.
        omissions: what was left out of the rows of whole sets and why, and what was cropped.
        left_out: clips that count in no mean, as `set/name`.
        notes: what else a reader must know about the method.
        rows: everything that was measured, by clip set and split.
        conditions: for each clip set, what it consists of: settings by name, as text.
    """

    method: str
    protocol: str
    status: str
    counted: str
    scores: dict[str, tuple[float | None, float | None]]
    cost: Cost = field(default_factory=Cost)
    omissions: Sequence[str] = ()
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def entries(runs: Iterable[Results]) -> list[Entry]:
    """The published methods that may stand beside these runs (`PUBLISHED_CLIPS`), then the runs."""
    runs = list(runs)
    rows = (row for run in runs for row in run.rows)
    shown_columns = {row.name for row in rows if row.clips + row.clips_left_out == PUBLISHED_CLIPS.get(row.name)}
    comparable = []
    for entry in published():
        scores = {column: pair for column, pair in entry.scores.items() if column in shown_columns}
        if scores:
            comparable.append(replace(entry, scores=scores))
    return comparable + [_measured(run) for run in runs]


def comparison_table(compared: list[Entry]) -> Table:
    """PSNR / SSIM and further metrics for each clip set and split, with costs, a row for each method."""
    measured = [entry for entry in compared if entry.status == OURS]
    columns = columns_of(measured)
    further = [
        (column, metric)
        for metric in _extras(measured)
        for column in columns
        if any(column in entry.rows and metric in entry.rows[column].extras for entry in measured)
    ]
    heads = [column.replace("/", " ") for column in columns]
    heads += [f"{column.replace('/', ' ')} {metric.upper()}" for column, metric in further]
    rows = [
        [
            entry.method,
            entry.status,
            entry.protocol,
            entry.counted,
            *(pair(entry.scores.get(column, (None, None))) for column in columns),
            *(decimals(_value(entry, column, metric), 4) for column, metric in further),
            *_cost_cells(entry.cost),
        ]
        for entry in compared
    ]
    notes = costs_of(measured)
    notes += differences(measured) + uneven(measured)
    # Systems that share a network share its notes.
    notes += dict.fromkeys(note for entry in measured for note in entry.notes)
    notes += [f"{entry.method}, protocol {entry.protocol}: {line}" for entry in measured for line in entry.omissions]
    if len(measured) < len(compared):
        notes.append(
            "Seconds of published rows: one Titan XP, the whole of Vid4, frames of 720x480 to 720x576, for each frame "
            "that counts (171); those of measured rows for each that is made (there 203 by protocol paper)."
        )
    return Table(
        ["method", "status", "protocol", "counted", *heads, "M param.", "G mult.-adds", "s a frame", "MiB"],
        rows,
        "PSNR / SSIM on Y of BT.601, 8 bit, uncropped; multiply-adds and seconds for each output frame",
        notes,
    )


def columns_of(measured: Sequence[Entry]) -> list[str]:
    """Clip sets and splits, such as `Vid4/all`: set by set, in the order of the paper's splits."""
    columns = list(dict.fromkeys(column for entry in measured for column in entry.scores))
    sets = list(dict.fromkeys(column.rsplit("/", 1)[0] for column in columns))
    return sorted(columns, key=lambda name: (sets.index(name.rsplit("/", 1)[0]), ORDER.index(name.rsplit("/", 1)[1])))


def costs_of(measured: Sequence[Entry]) -> list[str]:
    """One line on the frame sizes and devices that multiply-adds and seconds refer to; empty if there are none."""
    methods: dict[str, list[str]] = {}
    for entry in measured:
        if entry.cost.frame_size is not None:
            size = "x".join(map(str, entry.cost.frame_size))
            device = f" on {entry.cost.device}" if entry.cost.device else ""
            methods.setdefault(f"frames of {size}{device}", []).append(entry.method)
    descriptions = list(methods)
    if len(methods) > 1:
        descriptions = [f"{condition} ({', '.join(dict.fromkeys(names))})" for condition, names in methods.items()]
    return [f"Multiply-adds and seconds: {'; '.join(descriptions)}."] if descriptions else []


def comparison_csv(compared: list[Entry]) -> str:
    """A row for each method, clip set and split; PSNR on RGB, scores by part and further metrics come last."""
    further = ["psnr_rgb", *(metric + part for part in PARTS[1:] for metric in METRICS), *_extras(compared)]
    columns = ["method", "status", "protocol", "clips_and_split", "clips", "frames", "psnr_y", "ssim_y"]
    columns += ["parameters_million", "multiply_adds_billion", "seconds_per_frame", "device", "frame_size"]
    columns += ["peak_memory_mib", *further]
    rows = [
        [
            *(entry.method, entry.status, entry.protocol, column),
            *((row.clips, row.frames) if (row := entry.rows.get(column)) else (None, None)),
            *(*scores, _in(1e6, cost.parameters), _in(1e9, cost.multiply_adds), cost.seconds_per_frame, cost.device),
            *("x".join(map(str, cost.frame_size or ())), cost.peak_memory),
            *(_value(entry, column, metric) for metric in further),
        ]
        for entry in compared
        for cost in (entry.cost,)
        for column, scores in entry.scores.items()
    ]
    return as_csv(columns, rows)


def differences(measured: Sequence[Entry]) -> list[str]:
    """One line for each clip set that differs between the methods scored on it, saying what differs."""
    lines = []
    for clip_set in dict.fromkeys(name for entry in measured for name in entry.conditions):
        sharing = [entry for entry in measured if clip_set in entry.conditions]
        differing = []
        for name in dict.fromkeys(name for entry in sharing for name in entry.conditions[clip_set]):
            methods: dict[str, list[str]] = {}
            for entry in sharing:
                methods.setdefault(entry.conditions[clip_set].get(name, "null"), []).append(entry.method)
            if len(methods) > 1:
                values = (f"{value} ({', '.join(dict.fromkeys(names))})" for value, names in methods.items())
                differing.append(f"{name}: {' or '.join(values)}")
        if differing:
            lines.append(f"methods were scored on different versions of {clip_set}: {'; '.join(differing)}")
    return lines


def uneven(measured: Sequence[Entry]) -> list[str]:
    """One line for each method that leaves out clips that count for others."""
    lines = []
    for entry in measured:
        left_out = [clip for clip in entry.left_out if any(_counts(clip, other, entry) for other in measured)]
        if left_out:
            lines.append(
                f"{entry.method}, protocol {entry.protocol}: its means are without {listed(left_out)}, which count for "
                "other methods"
            )
    return lines


def _counts(clip: str, entry: Entry, other: Entry) -> bool:
    """Whether `clip`, which `other` leaves out, counts for `entry`: it was scored on the same data and not left out."""
    shared = (name for name, settings in entry.conditions.items() if settings == other.conditions.get(name))
    return clip not in entry.left_out and any(clip.startswith(f"{name}/") for name in shared)


def published() -> list[Entry]:
    """Table 1 of the paper, what is remembered of Table 2, and later methods."""
    text = (files("stvsr.evaluation") / "published.csv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        scores = {column: _parse(cell) for column, cell in row.items() if "/" in column and cell}
        seconds = float(row["seconds_per_frame"]) if row["seconds_per_frame"] else None
        parameters = round(1e6 * float(row["parameters"])) if row["parameters"] else None
        found.append(
            Entry(
                method=row["method"],
                protocol=row["protocol"],
                status=row["status"],
                counted=NOTHING,
                scores=scores,
                cost=Cost(parameters=parameters, seconds_per_frame=seconds),
            )
        )
    return found


def _measured(run: Results) -> Entry:
    whole = [row for row in run.rows if row.motion == UNSPLIT]
    names = [f"{row.clip_set}: " if len(whole) > 1 else "" for row in whole]
    counts = [f"{name}{row.clips} clips, {row.frames} frames" for name, row in zip(names, whole, strict=True)]
    return Entry(
        method=run.name,
        protocol=run.protocol.name,
        status=OURS,
        counted="; ".join(counts),
        scores={row.name: (row.scores["psnr_y"], row.scores["ssim_y"]) for row in run.rows},
        rows={row.name: row for row in run.rows},
        conditions={row.clip_set: conditions(run.settings, row) for row in whole},
        cost=run.cost,
        # The protocol in full: settings may have been changed under its name.
        notes=[str(run.protocol), *run.notes],
        omissions=[*(row.omission for row in whole if row.omission), *run.cuts()],
        left_out=list(run.left_out),
    )


def _extras(compared: Sequence[Entry]) -> list[str]:
    """The further metrics that any method has."""
    return list(dict.fromkeys(name for entry in compared for row in entry.rows.values() for name in row.extras))


def _value(entry: Entry, column: str, metric: str) -> float | None:
    return entry.rows[column].scores.get(metric) if column in entry.rows else None


def pair(scores: tuple[float | None, float | None]) -> str:
    """PSNR and SSIM in a cell."""
    psnr, ssim = scores
    return NOTHING if psnr is None else f"{psnr:.2f} / {decimals(ssim, 4)}"


def _cost_cells(cost: Cost) -> list[str]:
    """Parameters (millions), multiply-adds (10^9), seconds and memory (MiB), with those of each stage in brackets."""
    return [
        with_parts(
            decimals(_in(1e6, cost.parameters), 2), [decimals(stage.parameters / 1e6, 2) for stage in cost.stages]
        ),
        decimals(_in(1e9, cost.multiply_adds), 1),
        with_parts(
            decimals(cost.seconds_per_frame, 4), [decimals(stage.seconds_per_frame, 4) for stage in cost.stages]
        ),
        decimals(cost.peak_memory, 0),
    ]


def _in(unit: float, value: float | None) -> float | None:
    return None if value is None else value / unit


def _parse(cell: str) -> tuple[float | None, float | None]:
    psnr, ssim = cell.split("/")
    return float(psnr), float(ssim) if ssim else None
