"""What a network costs: parameters, multiply-adds, seconds per frame, memory."""

import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stvsr.data.clip import FRAMES, SCALE
from stvsr.errors import one_line
from stvsr.evaluation.progress import BatchRecord
from stvsr.models.chunking import unchunked
from stvsr.models.dry_run import dry_run
from stvsr.models.network import Network, learns, parameter_count


@dataclass(frozen=True)
class StageCost:
    """What a stage of a network costs.

    Attributes:
        parameters: how many it has.
        seconds_per_frame: for each output frame of the whole network, measured as in `Cost`.
    """

    parameters: int
    seconds_per_frame: float | None


@dataclass(frozen=True)
class Cost:
    """What a method costs; None where it does not apply (saved frames) or was not measured (a single batch).

    Attributes:
        parameters: how many the network has.
        multiply_adds: for each output frame, in convolutions, deformable ones like ordinary ones, and matrix products.
        frame_size: width and height of the output frames that seconds are for; multiply-adds are for these as
            `run_padded` pads them.
        seconds_per_frame: median over batches but the first of each shape, device synchronised.
        device: its name.
        peak_memory: MiB; of the GPU, or of the whole process on a CPU.
        stages: of a network that has some, in the order they run.
    """

    parameters: int | None = None
    multiply_adds: float | None = None
    frame_size: tuple[int, int] | None = None
    seconds_per_frame: float | None = None
    device: str | None = None
    peak_memory: float | None = None
    stages: list[StageCost] = field(default_factory=list)


def measured_cost(network: Network, records: list[BatchRecord]) -> Cost:
    """The cost of a network from the records of a run, for the frame size and the device of most of its frames.

    The device varies where a stopped run was resumed elsewhere. Memory is the peak over all sizes.

    Args:
        network: the one that ran.
        records: those of all batches.
    """
    frames: Counter[tuple[tuple[int, int], str]] = Counter()
    for record in records:
        frames[record.lr_size, record.device] += record.network_frames
    lr_size, device = frames.most_common(1)[0][0]
    on_device = [record for record in records if record.device == device]
    warm = [record for record in on_device if record.warm and record.lr_size == lr_size]
    times = [record.network_seconds / record.network_frames for record in warm]
    stages = []
    for name, stage in network.stages.items():
        stage_seconds = [record.stage_seconds[name] / record.network_frames for record in warm]
        stages.append(StageCost(parameter_count(stage), median(stage_seconds) if stage_seconds else None))
    return Cost(
        parameters=parameter_count(network),
        multiply_adds=multiply_adds(network, *lr_size),
        frame_size=(lr_size[1] * SCALE, lr_size[0] * SCALE),
        seconds_per_frame=median(times) if times else None,
        device=device,
        peak_memory=max(record.peak_memory for record in on_device),
        stages=stages,
    )


def multiply_adds(network: Network, height: int, width: int) -> float | None:
    """Multiply-adds for each output frame, where four LR frames of `height` x `width` are given.

    None where there are neither convolutions nor matrix products, and, with a warning, where they cannot be counted: a
    custom network may look at the values of tensors. Counted on fake tensors: nothing is computed. What is computed
    twice where large frames are processed in chunks counts once: the figure per pixel is the network's own.
    """
    h, w = network.requirements.padded_size(height, width)
    try:
        custom = {}
        if learns(network):
            # Imported only here, as it takes seconds; networks without parameters have no deformable convolution.
            import torchvision  # noqa: F401 - brings the operator

            custom[torch.ops.torchvision.deform_conv2d] = _deformable
        counter = FlopCounterMode(display=False, custom_mapping=custom)
        with unchunked():
            dry_run(network, h, w, counter)
    except Exception as error:
        # No error here may cost hours of scoring.
        reason = f"{type(network).__name__}: {type(error).__name__}: {one_line(error)[:200]}"
        print(f"warning: multiply-adds are not counted ({reason})", file=sys.stderr)
        return None
    counted: int = counter.get_total_flops()
    return counted / 2 / FRAMES if counted else None


def _deformable(features: torch.Size, weight: torch.Size, *_: Any, out_shape: torch.Size, **__: Any) -> int:
    """Floating-point operations of a deformable convolution, from its shapes: as many as in an ordinary one."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])
