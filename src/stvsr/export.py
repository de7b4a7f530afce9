"""Turns a checkpoint into a small file to share: `python -m stvsr.export last.ckpt network.safetensors`.

A sixth of its size: the network's weights in half precision and what rebuilds it, without the state of the training.
`load_network`, `stvsr-upscale` and `stvsr.evaluate` take it as they take a checkpoint.
"""

import argparse
from pathlib import Path

from stvsr.checkpoint import export
from stvsr.cli import one_line_errors


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m stvsr.export",
        description="Turns a checkpoint into a small file to share: its weights in half precision.",
    )
    parser.add_argument("checkpoint", type=Path, help="what stvsr.train wrote, or the authors' .pth")
    parser.add_argument("output", type=Path, help="a new file, NAME.safetensors")
    arguments = parser.parse_args()
    with one_line_errors():
        export(arguments.checkpoint, arguments.output)
        print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
