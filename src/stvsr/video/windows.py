"""Splits any number of frames into windows of four that share one; each output frame is kept once.

Short windows are part of the method: over long sequences its recurrence loses quality. As in the scoring protocol
`paper`, the frame that two windows share is taken from the earlier one, and a last window is moved back to the end of
its scene. A window never crosses a scene cut; between two scenes the last frame of the first is repeated, so that the
output keeps its rhythm. So `n` frames become `2n-1`, for any `n` and any cuts.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from stvsr.data.clip import GIVEN


@dataclass(frozen=True)
class Window:
    """Input frames for one pass of a network.

    Attributes:
        frames: one to four, each `(3, h, w)`; fewer than four only where a scene is shorter.
        kept: positions of the frames to keep, among the `2n-1` that a network makes of `frames`.
        hold: whether the last frame is repeated, in place of one between two scenes.
    """

    frames: list[Tensor]
    kept: range
    hold: bool


def windows(frames: Iterable[tuple[Tensor, bool]]) -> Iterator[Window]:
    """Windows that cover a stream of frames.

    Args:
        frames: each with whether it starts a scene.
    """
    # The last frames of the scene, of which `new` are in no window yet.
    recent: deque[Tensor] = deque(maxlen=GIVEN)
    new = 0

    def window(*, hold: bool) -> Window:
        outputs = 2 * len(recent) - 1
        # The first window of a scene keeps all its frames; a later one, two for each new input frame.
        return Window(list(recent), range(max(0, outputs - 2 * new), outputs), hold)

    for frame, starts_scene in frames:
        if recent and starts_scene:
            yield window(hold=True)
            recent.clear()
            new = 0
        shares = len(recent) > new
        # Only once the scene continues: its last window may have to hold a frame.
        if new == GIVEN - shares:
            yield window(hold=False)
            new = 0
        recent.append(frame)
        new += 1
    if recent:
        yield window(hold=False)
