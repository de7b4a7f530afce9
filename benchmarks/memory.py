"""Memory that a window takes, as counted beforehand and as measured: why `stvsr-upscale` keeps a reserve.

`python benchmarks/memory.py [--size 480x272]`: runs four frames of noise through the starter's network on a CPU. Prints
the size of tensors alive at the same time, as `stvsr-upscale` counts it without running anything, and by how much the
process grew at its peak, both per pixel of an input frame.
"""

import argparse
import os

# As stvsr.upscale does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from stvsr.checkpoint import load_network
from stvsr.data.clip import GIVEN
from stvsr.devices import MIB, forget_peak_memory, peak_memory, used_memory
from stvsr.video.memory import OVERHEAD, bytes_taken


def main() -> None:
    """Prints a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="480x272")
    width, height = map(int, parser.parse_args().size.split("x"))
    network, cpu = load_network("starter"), torch.device("cpu")
    counted = bytes_taken(network, height, width)
    with torch.inference_mode():
        network(torch.rand(1, GIVEN, 3, 16, 16))  # starts all threads
        frames = torch.rand(1, GIVEN, 3, height, width)
        forget_peak_memory(cpu)
        before = used_memory()
        network(frames)
    taken = peak_memory(cpu) * MIB - before
    kilobytes = (memory / (width * height) / 1000 for memory in (counted, taken))
    print(
        "{}x{}: counted {:.1f} KB per pixel, taken {:.1f}, {:.2f} times as much; reserve: {:.2f} times".format(
            width, height, *kilobytes, taken / counted, OVERHEAD
        )
    )


if __name__ == "__main__":
    main()
