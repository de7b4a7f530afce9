"""The contract of every network, its input requirements, declared as data, and how a caller meets them.

Every network maps `(b, n, 3, h, w)` to `(b, 2n-1, 3, 4h, 4w)` and carries a `requirements` attribute. A network
rejects input that does not meet them; `run_padded` pads, runs and crops, so that callers need not know which network
they hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from stvsr.data.clip import SCALE
from stvsr.errors import InvalidInput
from stvsr.models.weight_files import WeightFile

Forward = Callable[[Tensor], Tensor]
"""A network, or a recording that returns what the network would."""


@dataclass(frozen=True)
class InputRequirements:
    """The form of input a network accepts.

    Attributes:
        multiple_of: LR height and width must be multiples of this.
        minimum_frames: smallest number of input frames.
    """

    multiple_of: int = 1
    minimum_frames: int = 2

    def check(self, lr: Tensor) -> None:
        """Refuses input that does not meet these requirements.

        Raises:
            InvalidInput: `lr` is not floating point or not `(b, n, 3, h, w)`, is empty, has too few frames or
                an unsuitable size.
        """
        if not lr.is_floating_point():
            raise InvalidInput(f"input is {lr.dtype}; expected floating point in [0, 1]: divide uint8 by 255")
        if lr.ndim != 5 or lr.shape[2] != 3 or not lr.numel():
            raise InvalidInput(f"input has shape {tuple(lr.shape)}; expected (b, n, 3, h, w), RGB, and no size of 0")
        frames, (h, w) = lr.shape[1], lr.shape[-2:]
        if frames < self.minimum_frames:
            raise InvalidInput(
                f"input has {frames} frame(s); expected at least {self.minimum_frames}: give more, or repeat the last"
            )
        if h % self.multiple_of or w % self.multiple_of:
            raise InvalidInput(
                f"input frames are {w}x{h}; expected a width and height that are multiples of {self.multiple_of}: "
                "pad them first, as stvsr.models.network.run_padded does"
            )

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that `run_padded` pads LR frames to."""
        return height + -height % self.multiple_of, width + -width % self.multiple_of


class Stage(nn.Module):
    """A network that is one stage of a two-stage system and has its own name in tables.

    Attributes:
        title: its name in tables, as the paper writes it.
        weight_files: published weights that it can load.
        notes: what a reader of its scores must know: deviations from the authors' program, or of its size from the
            paper's table.
    """

    title: ClassVar[str]
    weight_files: ClassVar[tuple[WeightFile, ...]] = ()
    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def option(self) -> str:
        """Its name in configs, which is that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def learns(self) -> bool:
        """Whether it has parameters to train."""
        return learns(self)


class Network(nn.Module):
    """Any network of this package: `(b, n, 3, h, w)` in [0, 1] to `(b, 2n-1, 3, 4h, 4w)`, not clamped.

    Attributes:
        requirements: of its input.
        replayable: whether it launches the same kernels for all inputs of one shape, and copies nothing from or to
            the CPU in between, so that they can be recorded as a CUDA graph and replayed (`stvsr.graphs`).
        reach: how many LR frames before and after a window influence its output, where a clip has them; 0 if windows
            are independent, as the paper's are.
    """

    requirements: InputRequirements
    replayable: ClassVar[bool] = False
    reach: int = 0

    def forward(self, lr: Tensor) -> Tensor:
        """The output frames for `(b, n, 3, h, w)`; input that does not meet the requirements raises `InvalidInput`."""
        raise NotImplementedError

    @property
    def stages(self) -> Mapping[str, Stage]:
        """The parts whose costs tables list separately, in the order they run; most networks have none."""
        return {}


def check_network(made: object, setting: str) -> Network:
    """Returns the object that a setting has made, if it is a network.

    Raises:
        InvalidInput: it is not a `Network`.
    """
    if not isinstance(made, Network):
        raise InvalidInput(f"{setting}: {type(made).__name__} is not a stvsr.models.network.Network; subclass it")
    return made


def learns(network: nn.Module) -> bool:
    """Whether a network has parameters to train."""
    return next(network.parameters(), None) is not None


def parameter_count(network: nn.Module) -> int:
    """The number of a network's parameters, trained or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def run_padded(network: Network, lr: Tensor) -> Tensor:
    """Runs a network on frames of any size.

    Frames are padded by reflection at the right and bottom edges, to the next multiple the network declares, and the
    output is cropped.

    Args:
        network: what to run.
        lr: `(b, n, 3, h, w)` in [0, 1].

    Returns:
        `(b, 2n-1, 3, 4h, 4w)`.

    Raises:
        InvalidInput: the network refuses the input, such as too few frames.
    """
    h, w = lr.shape[-2:]
    output: Tensor = network(pad_to_multiple(lr, network.requirements.multiple_of))
    return output[..., : SCALE * h, : SCALE * w]


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Pads frames `(…, h, w)` at the right and bottom to multiples, by reflection without repeating the edge."""
    for dim in (-2, -1):
        size = frames.shape[dim]
        if missing := -size % multiple:
            # A triangle wave rather than one reflection: the frame may be smaller than the padding.
            position = torch.arange(size + missing, device=frames.device) % max(2 * size - 2, 1)
            frames = frames.index_select(dim, torch.where(position < size, position, 2 * size - 2 - position))
    return frames
