"""The two back ends of the deformable convolution against each other: `python benchmarks/deformable.py`.

Prints the median time of forward, and of forward and backward, and the ratio. On a GPU it measures there.
"""

import platform
import statistics
import time

import torch

from stvsr.ops.deformable import TAPS, grid_sample_deform_conv2d, torchvision_deform_conv2d

GROUPS = 8
REPEATS = 9
SHAPES = [(8, 16, 32, 32), (4, 64, 32, 32), (24, 64, 32, 32), (1, 64, 64, 112)]


def seconds(operator: object, shape: tuple[int, ...], device: torch.device, *, backward: bool) -> float:
    """Median over `REPEATS` runs, after one that does not count."""
    b, c, h, w = shape
    inputs = [
        torch.randn(size, device=device, requires_grad=backward)
        for size in ((b, c, h, w), (b, 2 * TAPS * GROUPS, h, w), (b, TAPS * GROUPS, h, w), (c, c, 3, 3), (c,))
    ]
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        output = operator(*inputs)  # type: ignore[operator]
        if backward:
            output.sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """A row for each shape."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(f"{name}, torch {torch.__version__}, {GROUPS} groups; milliseconds, median of {REPEATS}")
    print(f"{'shape':>20}{'':>20}{'torchvision':>13}{'grid_sample':>13}{'ratio':>8}")
    for shape in SHAPES:
        for backward in (False, True):
            theirs, ours = (
                seconds(operator, shape, device, backward=backward) * 1e3
                for operator in (torchvision_deform_conv2d, grid_sample_deform_conv2d)
            )
            kind = "forward + backward" if backward else "forward"
            print(f"{shape!s:>20}{kind:>20}{theirs:13.1f}{ours:13.1f}{theirs / ours:8.2f}")


if __name__ == "__main__":
    main()
