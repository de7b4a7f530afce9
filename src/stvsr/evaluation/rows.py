"""A row for each clip set and motion split: what counted, what did not and why, and the means."""

from collections import Counter
from dataclasses import dataclass

from stvsr.data.clip import MOTION_SPLITS, UNSPLIT
from stvsr.evaluation.metrics import METRICS
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.scores import PARTS, ClipScore, metrics_of


@dataclass(frozen=True)
class Row:
    """Scores of the clips of one motion split, or of all clips, of a set.

    Attributes:
        clip_set: its name.
        motion: slow, medium, fast, or all.
        clips: how many count.
        frames: how many count.
        clips_left_out: how many clips do not count.
        frames_left_out: how many frames of the clips that count do not.
        left_out: what was left out and why, in words; may be empty.
        scores: `psnr_y`, `ssim_y`, `psnr_rgb` and further metrics, each also for the given and the synthesised
            frames alone (`psnr_y_given`, …), and how many those are (`frames_given`, …); PSNR in dB. None where
            nothing counts.
    """

    clip_set: str
    motion: str
    clips: int
    frames: int
    clips_left_out: int
    frames_left_out: int
    left_out: str
    scores: dict[str, float | None]

    @property
    def name(self) -> str:
        """Set and split, such as `Vid4/all`."""
        return f"{self.clip_set}/{self.motion}"

    @property
    def omission(self) -> str:
        """What was left out of which row, in one line; empty if nothing."""
        return f"left out of {self.name}: {self.left_out}" if self.left_out else ""

    @property
    def metrics(self) -> list[str]:
        """The metrics of all frames: `psnr_y`, `ssim_y`, `psnr_rgb` and further ones."""
        return [name for name in self.scores if not name.endswith(PARTS[1:])]

    @property
    def extras(self) -> list[str]:
        """The further metrics."""
        return [name for name in self.metrics if name not in METRICS]

    def as_record(self) -> dict[str, object]:
        """Plain values by column."""
        fields = {key: value for key, value in vars(self).items() if key != "scores"}
        return {"name": self.name, **fields, **self.scores}

    @classmethod
    def from_record(cls, record: dict[str, object]) -> "Row":
        """The inverse of `as_record`.

        Raises:
            KeyError: a field is missing.
            TypeError: a score is not a number.
        """
        fields = {key: record[key] for key in cls.__dataclass_fields__ if key != "scores"}
        scores = {key: value for key, value in record.items() if key not in {*fields, "name"}}
        if not all(value is None or isinstance(value, int | float) for value in scores.values()):
            raise TypeError(f"scores {scores}; expected numbers")
        return cls(**fields, scores=scores)  # type: ignore[arg-type]


def summarise(clips: list[ClipScore], protocol: Protocol) -> list[Row]:
    """For each clip set: a row for each motion split that occurs, slow to fast, and one for all of its clips."""
    rows = []
    metrics = metrics_of(clips)
    for clip_set in dict.fromkeys(clip.info.clip_set for clip in clips):
        members = [clip for clip in clips if clip.info.clip_set == clip_set]
        for split in MOTION_SPLITS:
            if chosen := [clip for clip in members if clip.split == split]:
                rows.append(_row(clip_set, split, chosen, protocol, metrics))
        rows.append(_row(clip_set, UNSPLIT, members, protocol, metrics))
    return rows


def _row(clip_set: str, motion: str, clips: list[ClipScore], protocol: Protocol, metrics: list[str]) -> Row:
    counted = [clip for clip in clips if clip.left_out is None]
    uncounted: Counter[str] = Counter()
    for clip in counted:
        uncounted.update(clip.uncounted)
    whole = Counter(clip.left_out for clip in clips if clip.left_out is not None)
    reasons = [f"{_count(number, 'clip')}: {reason}" for reason, number in sorted(whole.items())]
    reasons += [f"{_count(number, 'frame')}: {reason}" for reason, number in sorted(uncounted.items())]

    frames = [frame for clip in counted for frame in clip.frames]
    given = sum(frame.given for frame in frames)
    scores: dict[str, float | None] = {}
    for part, count in zip(PARTS, (None, given, len(frames) - given), strict=True):
        if count is not None:
            scores[f"frames{part}"] = count
        for metric in metrics:
            means = {clip.info.name: clip.mean(metric, part) for clip in counted}
            present = {name: mean for name, mean in means.items() if mean is not None}
            scores[metric + part] = protocol.mean(list(present.values()), list(present)) if present else None
    return Row(
        clip_set=clip_set,
        motion=motion,
        clips=len(counted),
        frames=len(frames),
        clips_left_out=len(clips) - len(counted),
        frames_left_out=sum(uncounted.values()),
        left_out="; ".join(reasons),
        scores=scores,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
