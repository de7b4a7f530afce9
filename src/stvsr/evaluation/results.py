"""What an evaluation writes: one folder with every score and how it was made."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stvsr.errors import InvalidInput, listed
from stvsr.evaluation.costs import Cost, StageCost
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.rows import Row
from stvsr.evaluation.scores import PARTS, ClipScore, metrics_of
from stvsr.evaluation.tables import Table, as_csv, decimals, markdown, with_parts
from stvsr.files import write_text

RESULTS = "results.json"


@dataclass(frozen=True)
class Results:
    """One method on one or several clip sets.

    Attributes:
        name: of the method.
        protocol: how it was scored.
        cost: what the method costs.
        rows: one for each clip set and motion split; at least one.
        settings: the data, where LR frames and motion splits come from, and the like.
        seconds: time spent in the network, on scoring and waiting for frames.
        left_out: clips that count in no mean, each with the reason.
        cropped: clips of which an incomplete last row or column of LR pixels was cut off, each with the sizes.
        notes: what else a reader must know about the method.
        made_with: what decides the results; weights, files and code as checksums.
    """

    name: str
    protocol: Protocol
    cost: Cost
    rows: list[Row]
    settings: dict[str, Any]
    seconds: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)
    cropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    made_with: dict[str, Any] = field(default_factory=dict)

    def table(self) -> Table:
        """The results as a table for people."""
        extras = self.rows[0].extras
        columns = ["set", "motion", "clips", "frames", "PSNR Y", "SSIM Y", "PSNR RGB", *map(str.upper, extras)]
        columns += [f"{metric} {part}" for part in ("given", "synth.") for metric in ("PSNR Y", "SSIM Y")]
        wanted = {"psnr_y": 2, "ssim_y": 4, "psnr_rgb": 2} | dict.fromkeys(extras, 4)
        wanted |= {f"{metric}{part}": wanted[metric] for part in PARTS[1:] for metric in ("psnr_y", "ssim_y")}
        cells = []
        for row in self.rows:
            figures = [decimals(row.scores.get(name), digits) for name, digits in wanted.items()]
            cells.append([row.clip_set, row.motion, str(row.clips), str(row.frames), *figures])
        notes = [f"LR frames: {self.settings['lr_frames']}; motion split: {self.settings['motion']}"]
        notes += [*self.omissions(), *self.cuts()]
        return Table(columns, cells, str(self.protocol), [self.describe_method(), *self.notes, *notes])

    def omissions(self) -> list[str]:
        """What was left out of each row and why, a line each, and the clips by name."""
        lines = [row.omission for row in self.rows if row.omission]
        if self.left_out:
            lines.append(f"clips left out: {listed([f'{clip} ({reason})' for clip, reason in self.left_out.items()])}")
        return lines

    def cuts(self) -> list[str]:
        """One line on the clips that were cropped to whole LR pixels; empty if none was."""
        if not self.cropped:
            return []
        clip, sizes = next(iter(self.cropped.items()))
        return [f"cut to whole LR pixels: {len(self.cropped)} clip(s), {clip} from {sizes}"]

    def describe_method(self) -> str:
        """The method and what it costs, in one line."""
        cost, parts = self.cost, [self.name]
        if cost.parameters is not None:
            stages = [f"{stage.parameters:,}" for stage in cost.stages]
            parts.append(with_parts(f"{cost.parameters:,} parameters", stages))
        if cost.multiply_adds and cost.frame_size:
            parts.append(
                f"{cost.multiply_adds / 1e9:.1f} G multiply-adds a frame of {'x'.join(map(str, cost.frame_size))}"
            )
        if cost.seconds_per_frame is not None:
            stages = [decimals(stage.seconds_per_frame, 4) for stage in cost.stages]
            parts.append(f"{with_parts(f'{cost.seconds_per_frame:.4f} s', stages)} a frame on {cost.device}")
        if cost.peak_memory is not None:
            parts.append(f"peak memory {cost.peak_memory:.0f} MiB")
        return ", ".join(parts)

    def write(self, folder: Path, clips: list[ClipScore]) -> None:
        """Writes `results.json`, `.csv`, `.md`, `.tex`, `clips.csv` and `frames.csv`; each appears only when whole."""
        folder.mkdir(parents=True, exist_ok=True)
        records = [row.as_record() for row in self.rows]
        costs = {key: value for key, value in asdict(self.cost).items() if key not in ("frame_size", "stages")}
        table = self.table()
        files = {
            "results.csv": as_csv(
                [*records[0], "protocol", *costs],
                [[*record.values(), self.protocol.name, *costs.values()] for record in records],
            ),
            "results.md": f"# {markdown(self.name)}\n\n{table.as_markdown()}",
            "results.tex": table.as_latex(),
            "clips.csv": clips_csv(clips),
            "frames.csv": frames_csv(clips),
            # Last: where it exists, all that a report needs does too.
            RESULTS: json.dumps({**asdict(self), "says": str(self.protocol), "rows": records}, indent=2) + "\n",
        }
        for name, content in files.items():
            write_text(folder / name, content)


def read_results(folder: Path) -> Results:
    """Reads what `Results.write` wrote.

    Raises:
        InvalidInput: there are no results in the folder, or unreadable ones.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise InvalidInput(f"{folder}: no {RESULTS} there; expected the output_dir of a finished stvsr.evaluate")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        del content["says"]
        costs = content.pop("cost")
        cost = Cost(**{**costs, "stages": [StageCost(**stage) for stage in costs["stages"]]})
        rows = [Row.from_record(record) for record in content.pop("rows")]
        return Results(**content | {"protocol": Protocol(**content["protocol"])}, cost=cost, rows=rows)
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(f"{path}: not the results of this version of stvsr.evaluate; evaluate again") from None


def clips_csv(clips: list[ClipScore]) -> str:
    """A row for each clip."""
    metrics = [(metric, part) for part in PARTS for metric in metrics_of(clips)]
    columns = ["set", "clip", "motion", "pixels", "frames", "left_out", *(metric + part for metric, part in metrics)]
    rows = [
        [clip.info.clip_set, clip.info.name, clip.split, clip.motion, len(clip.frames), clip.left_out]
        + [clip.mean(metric, part) for metric, part in metrics]
        for clip in clips
    ]
    return as_csv(columns, rows)


def frames_csv(clips: list[ClipScore]) -> str:
    """A row for each frame that counts."""
    metrics = metrics_of(clips)
    rows = [
        [clip.info.clip_set, clip.info.name, frame.number, "given" if frame.given else "synthesised", frame.motion]
        + [frame.metrics[metric] for metric in metrics]
        for clip in clips
        for frame in clip.frames
    ]
    return as_csv(["set", "clip", "frame", "kind", "pixels", *metrics], rows)
