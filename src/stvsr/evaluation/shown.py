"""Pictures of a few clips that an evaluation keeps for the report: whole frames, and a row of pixels over time.

The clips are spread evenly over the data and do not depend on the scores, so that every method shows the same ones.
Each clip's middle window provides a given frame and the synthesised one after it (as the paper's figures do); every
window provides the pixels of its middle row, which together make a space-time slice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stvsr.data.clip import SCALE, to_8bit
from stvsr.data.png import read_png, write_png
from stvsr.evaluation.windows import Task, WindowFrames


@dataclass(frozen=True)
class ShownFrame:
    """A frame of a window that pictures show.

    Attributes:
        position: in the window, counted from 0.
        kind: `given` or `synthesised`.
        input_name: the caption of what `input` returns.
    """

    position: int
    kind: str
    input_name: str

    def input(self, lr: Tensor) -> Tensor:
        """The LR picture for this frame, from `(n, 3, h, w)`: the LR frame at its time, or its neighbours' mean."""
        return (lr[self.position // 2] + lr[(self.position + 1) // 2]) / 2


SHOWN = (ShownFrame(2, "given", "LR input"), ShownFrame(3, "synthesised", "overlaid LR inputs"))
"""What is shown of every clip: a frame the network was given and the next, which it was not."""

PICTURES = "pictures"
"""The folder of pictures, below `output_dir`."""

LARGEST = (1024, 768)
"""Width and height, HR pixels; of larger frames only the middle is kept."""


class ShownClips:
    """Writes pictures of some clips below a folder.

    Args:
        folder: where a folder is created for each clip.
        clips: how many; 0 for none.
        tasks: the plan.
    """

    def __init__(self, *, folder: Path, clips: int, tasks: list[Task]) -> None:
        self.folder = folder
        indices = list(dict.fromkeys(task.index for task in tasks))
        count = min(clips, len(indices))
        shown = {indices[(2 * i + 1) * len(indices) // (2 * count)] for i in range(count)}
        self.middle: dict[int, Task] = {}
        for index in sorted(shown):
            windows = [task for task in tasks if task.index == index]
            # Not a last window that was moved back, in which the frames to show may not count.
            whole = [task for task in windows if SHOWN[0].position in task.window.kept]
            self.middle[index] = whole[len(whole) // 2]

    def folders(self) -> list[dict[str, str]]:
        """The clips that are shown: set, clip, and its folder of pictures, relative to `folder`."""
        tasks = self.middle.values()
        return [{"set": task.clip.clip_set, "clip": task.clip.name, "folder": task.folder} for task in tasks]

    def add(self, frames: WindowFrames, prediction: Tensor) -> None:
        """Writes what is shown of a window.

        Args:
            frames: the window.
            prediction: the frames that count, `(t, 3, H, W)`.
        """
        task = frames.task
        if task.index not in self.middle:
            return
        folder = self.folder / task.folder
        folder.mkdir(parents=True, exist_ok=True)
        kept = task.window.kept
        hr = frames.hr[kept.start : kept.stop]
        row = hr.shape[-2] // 2
        for name, source in (("prediction", prediction), ("truth", hr)):
            # (t, 3, W) to a picture of t rows, cropped to the middle where it is wide, as frames are.
            left = max(0, source.shape[-1] - LARGEST[0]) // 2
            pixels = source[:, :, row, left : left + LARGEST[0]].permute(1, 0, 2)
            write_png(folder / f"slice-{name}-{task.numbers[0]:08d}.png", pixels)
        if task == self.middle[task.index]:
            for frame in SHOWN:
                index = frame.position - kept.start
                pictures = {
                    "input": frame.input(frames.lr[frames.inside // 2 :]),
                    "truth": hr[index],
                    "prediction": prediction[index],
                }
                for name, picture in pictures.items():
                    path = folder / f"{frame.kind}-{name}-{task.numbers[index]:08d}.png"
                    write_png(path, _middle(to_8bit(picture), 1 if name == "input" else SCALE))


def _middle(frame: Tensor, scale: int) -> Tensor:
    """The middle of a frame `(3, H, W)`, at most `LARGEST`; computed in LR pixels, so that LR and HR ones match."""
    height, width = (side // scale for side in frame.shape[-2:])
    wide, high = (side // SCALE for side in LARGEST)
    top, left = max(0, height - high) // 2, max(0, width - wide) // 2
    return frame[:, scale * top : scale * (top + high), scale * left : scale * (left + wide)]


def slices(paths: Iterable[Path]) -> Tensor:
    """The slice of a clip from those of its windows, `(3, t, W)`, uint8; wider ones are cropped to their middle."""
    parts = [read_png(path) for path in sorted(paths)]
    width = min(part.shape[-1] for part in parts)
    return torch.cat([part.narrow(2, (part.shape[-1] - width) // 2, width) for part in parts], dim=1)
