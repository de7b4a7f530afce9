"""The batch contract: what every source yields and every network, loss and metric receives.

A clip is `2n-1` consecutive high-resolution (HR) frames and the `n` low-resolution (LR) frames a network sees:
the odd-numbered ones (1, 3, 5, … as the paper counts; even indices here), a quarter as high and wide.
Frames are RGB. `t` counts frames in time; one notation holds everywhere: `(b, t, c, h, w)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stvsr.data.workers import share_with_parent
from stvsr.errors import InvalidInput

SCALE = 4
"""Spatial magnification of the paper and of every network here."""

FRAMES = 7
"""Frames of a clip in training and scoring: four are given, three between them are synthesised."""

GIVEN = (FRAMES + 1) // 2
"""Frames of a clip that a network is given."""

MOTION_SPLITS = ("slow", "medium", "fast")
"""The motion splits of the paper's Table 1."""

UNSPLIT = "all"
"""The row of all clips of a set; also the split of a clip whose motion is not known."""

SPLITS = (*MOTION_SPLITS, UNSPLIT)
"""Every split there is."""


PEAK = 255
"""The largest value of an 8-bit frame."""


TOGETHER = 2**19
"""Values of a frame that `to_8bit` converts at a time on a CPU."""


def to_float(frames: Tensor) -> Tensor:
    """Stored frames, uint8, as float32 in [0, 1].

    Raises:
        InvalidInput: frames are not uint8, such as ones that are float32 already.
    """
    if frames.dtype != torch.uint8:
        raise InvalidInput(f"frames are {frames.dtype}; expected uint8, as they are stored")
    return frames.float() / PEAK


def to_8bit(frames: Tensor) -> Tensor:
    """Frames `(…, c, H, W)` as a file stores them: clamped to [0, 1] and rounded to uint8; uint8 frames unchanged.

    One function, for scores and for saved frames, so that a network and its saved frames score alike.

    Raises:
        InvalidInput: frames are neither uint8 nor floating point.
    """
    if frames.dtype == torch.uint8:
        return frames
    if not frames.is_floating_point():
        raise InvalidInput(f"frames are {frames.dtype}; expected uint8, or floating point in [0, 1]")
    stored = torch.empty(frames.shape, dtype=torch.uint8, device=frames.device)
    height, width = frames.shape[-2:]
    # In double precision, so that ties do not depend on the device. On a CPU, some rows at a time in one buffer:
    # new memory for each took four times as long. A GPU would wait for launches.
    chunk_rows = min(height, max(1, TOGETHER // max(1, width))) if frames.device.type == "cpu" else height
    buffer = torch.empty(chunk_rows, width, dtype=torch.float64, device=frames.device)
    for plane, target in zip(frames.flatten(0, -3), stored.flatten(0, -3), strict=True):
        for rows, part in zip(torch.split(plane, chunk_rows), torch.split(target, chunk_rows), strict=True):
            part.copy_(buffer[: len(rows)].copy_(rows).clamp_(0, 1).mul_(PEAK).round_())
    return stored


def _no_prefetch(first: int, end: int) -> None:
    """Does nothing: the prefetch of frames that are in memory."""


@dataclass(frozen=True)
class Footage:
    """Whole frames as a source reads them.

    Attributes:
        frames: `(t, 3, H, W)`, uint8; may be mapped from a file, of which only what is used is read.
        name: names the clip in messages and tables, for example `00001/0266`.
        motion: one of `MOTION_SPLITS`, or `UNSPLIT`.
        prefetch_rows: called with the first row that will be used and the row after the last, so that mapped frames
            read only these, in one go. Optional: frames are the same without.
    """

    frames: Tensor
    name: str
    motion: str
    prefetch_rows: Callable[[int, int], None] = _no_prefetch

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != torch.uint8:
            raise InvalidInput(
                f"clip {self.name}: frames are {self.frames.dtype} of shape {tuple(self.frames.shape)}; "
                "expected uint8 of shape (t, 3, H, W)"
            )
        check_motion(self.name, self.motion)


def check_motion(clip: str, motion: str) -> None:
    """Refuses what is not a motion split.

    Raises:
        InvalidInput: names the clip, and the splits there are.
    """
    if motion not in SPLITS:
        raise InvalidInput(f"clip {clip}: motion is {motion!r}; expected {', '.join(MOTION_SPLITS)} or {UNSPLIT}")


class Source(Protocol):
    """A collection of clips that can be read in any order, from any process."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """Reads clip `index`; `rng` decides whatever the source leaves to chance.

        Raises:
            DamagedClip: the clip cannot be read as it should be.
        """
        ...


@dataclass(frozen=True)
class Clip:
    """One training or scoring example.

    Attributes:
        lr: `(n, 3, h, w)`, float32 in [0, 1], on the 8-bit grid.
        hr: `(2n-1, 3, 4h, 4w)`, float32 in [0, 1], on the 8-bit grid.
        name: names the clip in messages and tables.
        motion: one of `MOTION_SPLITS`, or `UNSPLIT`.
        skipped: errors of damaged clips that this one stands in for.
    """

    lr: Tensor
    hr: Tensor
    name: str
    motion: str
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, c, h, w = self.lr.shape
        expected = (2 * n - 1, c, SCALE * h, SCALE * w)
        if c != 3 or tuple(self.hr.shape) != expected:
            raise InvalidInput(
                f"clip {self.name}: LR {tuple(self.lr.shape)} and HR {tuple(self.hr.shape)} do not match; "
                f"expected HR {expected} with 3 channels"
            )


@dataclass  # not frozen: Lightning replaces the tensors by ones of another precision
class Batch:
    """Clips of one size, stacked.

    Attributes:
        lr: `(b, n, 3, h, w)`, float32 in [0, 1].
        hr: `(b, 2n-1, 3, 4h, 4w)`, float32 in [0, 1].
        names: `b` clip names.
        motions: `b` motion splits.
        skipped: errors of damaged clips that others stand in for.
    """

    lr: Tensor
    hr: Tensor
    names: list[str]
    motions: list[str]
    skipped: list[str] = field(default_factory=list)

    @classmethod
    def collate(cls, clips: Sequence[Clip]) -> "Batch":
        """Stacks clips of one size.

        Raises:
            InvalidInput: the clips differ in size, or a loader process cannot hand them over.
        """
        sizes = {tuple(clip.hr.shape) for clip in clips}
        if len(sizes) > 1:
            raise InvalidInput(
                f"clips of a batch differ in size: {sorted(sizes)}; use loader.eval_batch_size=1 or crops"
            )
        lr, hr = torch.stack([clip.lr for clip in clips]), torch.stack([clip.hr for clip in clips])
        share_with_parent(lr, hr)
        return cls(
            lr=lr,
            hr=hr,
            names=[clip.name for clip in clips],
            motions=[clip.motion for clip in clips],
            skipped=[name for clip in clips for name in clip.skipped],
        )

    def __len__(self) -> int:
        return len(self.names)

    # The two methods by which Lightning moves a batch and a data loader pins it.
    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device; copied asynchronously if its memory is page-locked."""
        # Lightning asks for that only with plain tensors.
        non_blocking = non_blocking or self.lr.is_pinned()
        lr, hr = (frames.to(device, non_blocking=non_blocking) for frames in (self.lr, self.hr))
        return Batch(lr, hr, self.names, self.motions, self.skipped)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory."""
        return Batch(self.lr.pin_memory(), self.hr.pin_memory(), self.names, self.motions, self.skipped)


def whole_pixels(frames: Tensor) -> Tensor:
    """HR frames `(…, H, W)` without the last rows and columns that form no whole LR pixel."""
    h, w = (side - side % SCALE for side in frames.shape[-2:])
    return frames[..., :h, :w]
