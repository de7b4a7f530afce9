"""Finds where frames cross a scene cut: in a short sequence (`first_cut`) or in a stream (`scene_starts`).

PySceneDetect scores each transition by its mean change in HSV; its own decisions do not fit seven frames.
`ContentDetector` reports no cut within the first 15 frames (`min_scene_len`), and with that set to 0 its
threshold of 27 takes fast camera motion for cuts: it refuses 380 of the 4431 windows of our development
clips, of which 24 cross a cut. `AdaptiveDetector` compares with the neighbours but leaves two transitions at
each end undecided.

So a cut here is a transition that changes the picture much and stands out from the others of its window, or, in
a stream, from those around it. Fast motion changes every frame alike; a cut changes one. Limits: dissolves,
and cuts between pictures of similar colours or within very fast motion, are missed. Repeated frames (twice, in a
stream also three times) do not hide motion, except at the first and the last transition of a stream; more repeats do,
and fast motion is then taken for cuts.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise, repeat

import numpy as np
import numpy.typing as npt
from torch import Tensor

from stvsr.data.opencv import cv2

CUT_SCORE = 20.0
"""Least change of a cut, on the 0 to 255 scale of PySceneDetect's `content_val`."""

CUT_RATIO = 1.7
"""Least change of a cut as a multiple of the median change of the window's other transitions.

With 1.7 all four cuts of the development clips are found in every window that crosses them, and 12 of 4407 windows
without a cut are refused; with 2.0 one cut is missed in half of its windows.
"""

REPEATED = 1.0
"""A smaller change says nothing about motion: a repeated frame, as where 30 frames a second are stored as 60."""

SCORED_WIDTH = 256
"""Frames are subsampled to about this width first, as PySceneDetect does."""


REACH = 3
"""A transition of a stream is compared with this many before and after it: about a window of seven frames."""


def first_cut(frames: Tensor) -> int | None:
    """The first frame after a cut, or None where the frames show one scene.

    Args:
        frames: `(t, 3, H, W)`, uint8 RGB.

    Returns:
        An index in `1 … t - 1`, or None.
    """
    changes = content_changes(frames)
    for position, change in enumerate(changes):
        if _stands_out(float(change), np.delete(changes, position)):
            return position + 1
    return None


def scene_starts(frames: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each frame of a stream, and whether it starts a new scene; False for the first frame, which no scene precedes.

    Reads `REACH` frames ahead.

    Args:
        frames: each `(3, H, W)`, uint8 RGB, all of one size.
    """
    waiting: deque[Tensor] = deque()
    # The middle one is the transition to the first waiting frame; None where there is none.
    changes: deque[float | None] = deque([None] * (2 * REACH + 1), maxlen=2 * REACH + 1)
    before = None
    for number, frame in enumerate(chain(frames, repeat(None, REACH))):
        change = None
        if frame is not None:
            hsv = _hsv(frame)
            change = None if before is None else float(np.abs(hsv - before).mean())
            before = hsv
            waiting.append(frame)
        changes.append(change)
        if number >= REACH:
            current = changes[REACH]
            others = [change for position, change in enumerate(changes) if position != REACH and change is not None]
            yield waiting.popleft(), current is not None and _stands_out(current, np.array(others))


def content_changes(frames: Tensor) -> npt.NDArray[np.float64]:
    """The mean change in hue, saturation and value of each transition: `(t - 1,)`, 0 (none) to 255.

    The same numbers as PySceneDetect's `content_val` (a test compares them), whose public API also detects edges,
    which have no weight in it, at four times the cost.
    """
    return np.array([np.abs(after - before).mean() for before, after in pairwise(map(_hsv, frames))])


def _stands_out(change: float, others: npt.NDArray[np.float64]) -> bool:
    # Checked first: most changes are small, and medians throughout a video take time.
    if change < CUT_SCORE:
        return False
    moving = others[others >= REPEATED]
    # In a still scene, a single larger change may be a second cut, and so may the larger one of two.
    typical = np.quantile(moving, 0.5, method="lower") if moving.size > 1 else np.median(others) if others.size else 0.0
    return change >= CUT_RATIO * float(typical)


def _hsv(frame: Tensor) -> npt.NDArray[np.int16]:
    """A subsampled frame in HSV, signed, so that differences do not wrap around."""
    step = max(1, frame.shape[-1] // SCORED_WIDTH)
    image = frame[:, ::step, ::step].permute(1, 2, 0).contiguous().numpy()
    hsv: npt.NDArray[np.int16] = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16)
    return hsv
