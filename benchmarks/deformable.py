"""The back ends of the deformable convolution against each other: `python benchmarks/deformable.py`.

Prints median times of torchvision's and ours in float32, forward alone and with backward, and their ratio.
Ours is the Triton kernel on a GPU, and on a CPU the blocked one, for several block sizes.
"""

import os
import statistics
import time
from collections.abc import Callable

# As stvsr.upscale does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor

from stvsr.devices import chosen_device, device_name, synchronise
from stvsr.ops import deformable_cpu
from stvsr.ops.deformable import torchvision_deform_conv2d
from stvsr.ops.deformable_cpu import TAPS, blocked_deform_conv2d
from stvsr.ops.deformable_triton import triton_deform_conv2d

GROUPS = 8
REPEATS = 9
SHAPES = [(4, 64, 32, 32), (48, 64, 32, 32), (2, 64, 64, 112), (2, 64, 144, 180)]
BLOCKS = [1024, 4096, 16384]


def seconds(operator: Callable[..., Tensor], shape: tuple[int, ...], device: torch.device, *, backward: bool) -> float:
    """Median over `REPEATS` runs, after one that warms up."""
    b, c, h, w = shape
    inputs = [
        torch.randn(size, device=device, requires_grad=backward)
        for size in ((b, c, h, w), (b, 2 * TAPS * GROUPS, h, w), (b, TAPS * GROUPS, h, w), (c, c, 3, 3), (c,))
    ]
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        output = operator(*inputs)
        if backward:
            output.sum().backward()
        synchronise(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Prints the table."""
    device = chosen_device("auto")
    on_gpu = device.type == "cuda"
    ours = triton_deform_conv2d if on_gpu else blocked_deform_conv2d
    print(f"{device_name(device)}, torch {torch.__version__}, {GROUPS} groups; milliseconds, median of {REPEATS}")
    print(f"{'shape':>20}{'':>20}{'block':>7}{'torchvision':>13}{'ours':>9}{'ratio':>8}")
    for shape in SHAPES:
        for backward in (False, True):
            kind = "forward + backward" if backward else "forward"
            for block in (deformable_cpu.BLOCK,) if on_gpu else BLOCKS:
                deformable_cpu.BLOCK = block
                theirs, found = (
                    seconds(operator, shape, device, backward=backward) * 1e3
                    for operator in (torchvision_deform_conv2d, ours)
                )
                size = "" if on_gpu else f"{block}"
                print(f"{shape!s:>20}{kind:>20}{size:>7}{theirs:13.1f}{found:9.1f}{theirs / found:8.2f}", flush=True)


if __name__ == "__main__":
    main()
