"""Frames of any number into windows of four that share one, each output frame exactly once.

Short windows are part of the method: over long sequences its recurrence loses quality. As in the scoring protocol
`paper`, the frame that two windows share counts from the earlier one, and a last window is moved back to the end of its
scene. A window never crosses a scene cut; between two scenes the last frame of the first stands once more, so that the
output keeps its rhythm. So `n` frames become `2n-1`, for any `n` and any cuts.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from stvsr.data.clip import GIVEN


@dataclass(frozen=True)
class Window:
    """Frames that a network is given in one go.

    Attributes:
        frames: one to four, each `(3, h, w)`; fewer than four only where a scene is shorter.
        kept: of the `2n-1` frames a network makes of them, the positions of those that count.
        hold: whether the last frame stands once more, in place of one between two scenes.
    """

    frames: list[Tensor]
    kept: range
    hold: bool


def windows(frames: Iterable[tuple[Tensor, bool]]) -> Iterator[Window]:
    """Windows that cover a stream of frames.

    Args:
        frames: each with whether a scene starts with it.
    """
    # The last frames of the scene, of which the last `new` are not covered yet.
    recent: deque[Tensor] = deque(maxlen=GIVEN)
    new = 0

    def window(*, hold: bool) -> Window:
        made = 2 * len(recent) - 1
        # The first window of a scene makes all its frames; a later one two for each that is new.
        return Window(list(recent), range(max(0, made - 2 * new), made), hold)

    for frame, starts_scene in frames:
        if recent and starts_scene:
            yield window(hold=True)
            recent.clear()
            new = 0
        shares = len(recent) > new
        # Only when another frame follows: before, this may be the last window of its scene.
        if new == GIVEN - shares:
            yield window(hold=False)
            new = 0
        recent.append(frame)
        new += 1
    if recent:
        yield window(hold=False)
