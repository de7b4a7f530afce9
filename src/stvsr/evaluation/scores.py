"""Scores of clips, put together from the windows they were made in (paper Sec. 4.1).

A clip's score is the mean over its frames that count. A clip with a frame of infinite PSNR (such as black
predicted exactly) would make every mean infinite; it is left out and named.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isinf
from statistics import fmean

from stvsr.data.clip import SCALE
from stvsr.data.clip_sets import ClipInfo
from stvsr.data.motion_measure import MotionThresholds
from stvsr.evaluation.metrics import METRICS
from stvsr.evaluation.windows import Task

ALL_FRAMES, GIVEN_FRAMES, SYNTHESISED_FRAMES = PARTS = ("", "_given", "_synthesised")
"""All frames, those the network was given in low resolution, those it was not: suffixes of column names."""

PART_NAMES = dict(zip(PARTS, ("all", "given", "synthesised"), strict=True))

NOT_COVERED = "not covered by the protocol's windows"


@dataclass(frozen=True)
class WindowScore:
    """Scores of one window; lists have a value for each frame that counts.

    Attributes:
        position: of the window in the plan.
        metrics: values by metric; none if the window is interrupted.
        motion: HR pixels from the frame before; None for the first frame of a clip.
        pairs: checksums of the pixels of the frame before and of this one; likewise.
        black: whether the true frame is all black; empty if interrupted.
        size: width and height of the ground truth before an incomplete last row or column was cut off.
        interruption: why the window was not scored; None if it was.
        state: fingerprint of the files that the window was read from.
    """

    position: int
    metrics: dict[str, list[float]]
    motion: list[float | None]
    pairs: list[str | None]
    black: list[bool]
    size: tuple[int, int]
    interruption: str | None
    state: str = ""


@dataclass(frozen=True)
class FrameScore:
    """Scores of one frame.

    Attributes:
        number: as in file names.
        given: whether the network was given it.
        metrics: values by metric; PSNR in dB.
        motion: HR pixels from the frame before, or None.
    """

    number: int
    given: bool
    metrics: dict[str, float]
    motion: float | None


@dataclass(frozen=True)
class ClipScore:
    """Scores of one clip.

    Attributes:
        info: what it is.
        split: slow, medium or fast, as given by the data or as measured.
        motion: measured, HR pixels per frame; None if no two frames that count follow each other.
        frames: those that count.
        uncounted: how many do not, by reason.
        cropped: what was cut off, for example `721x577 to 720x576`; empty if nothing.
        left_out: why the clip counts in no mean; None if it does.
        beginning: a checksum of the pixels of its first two frames.
    """

    info: ClipInfo
    split: str
    motion: float | None
    frames: list[FrameScore]
    uncounted: dict[str, int]
    cropped: str
    left_out: str | None
    beginning: str = ""

    def mean(self, metric: str, part: str) -> float | None:
        """Mean over the frames of a part (of `PARTS`); None if it has none."""
        values = [
            frame.metrics[metric]
            for frame in self.frames
            if part in (ALL_FRAMES, GIVEN_FRAMES if frame.given else SYNTHESISED_FRAMES)
        ]
        return fmean(values) if values else None


def metrics_of(clips: list[ClipScore]) -> list[str]:
    """The metrics that the frames of clips have, in the order of the columns; `METRICS` where no frame counts."""
    return list(next((frame.metrics for clip in clips for frame in clip.frames), METRICS))


def clip_scores(tasks: list[Task], windows: Iterable[WindowScore], thresholds: MotionThresholds) -> list[ClipScore]:
    """Joins windows into clips, in the order of the plan.

    Args:
        tasks: the plan.
        windows: a score for each window, in any order.
        thresholds: decide the split of clips for which the data gives none.
    """
    by_position = {window.position: window for window in windows}
    clips: dict[int, list[tuple[Task, WindowScore]]] = {}
    for position, task in enumerate(tasks):
        clips.setdefault(task.index, []).append((task, by_position[position]))
    return [_clip_score(parts, thresholds) for parts in clips.values()]


def _clip_score(parts: list[tuple[Task, WindowScore]], thresholds: MotionThresholds) -> ClipScore:
    info = parts[0][0].clip
    uncounted: Counter[str] = Counter()
    frames, motions, black = [], [], []
    covered = 0
    for task, window in parts:
        covered += len(task.numbers)
        if window.interruption is not None:
            uncounted[window.interruption] += len(task.numbers)
            continue
        motions += [value for value in window.motion if value is not None]
        black += window.black
        for i, (number, given) in enumerate(zip(task.numbers, task.window.given, strict=True)):
            values = {metric: column[i] for metric, column in window.metrics.items()}
            frames.append(FrameScore(number, given, values, window.motion[i]))
    if covered < info.frames:
        uncounted[NOT_COVERED] = info.frames - covered
    motion = fmean(motions) if motions else None
    width, height = parts[0][1].size
    w, h = width // SCALE * SCALE, height // SCALE * SCALE
    return ClipScore(
        info=info,
        split=info.motion or thresholds.split(motion or 0.0),
        motion=motion,
        frames=frames,
        uncounted=dict(uncounted),
        cropped="" if (w, h) == (width, height) else f"{width}x{height} to {w}x{h}",
        left_out=_reason(frames, black, uncounted),
        beginning=next(filter(None, parts[0][1].pairs), ""),
    )


def _reason(frames: list[FrameScore], black: list[bool], uncounted: Mapping[str, int]) -> str | None:
    if not frames:
        return f"no frame counts: {', '.join(uncounted)}"
    if any(isinf(frame.metrics["psnr_y"]) for frame in frames):
        return "all black" if all(black) else "infinite PSNR"
    return None
