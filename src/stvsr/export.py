"""Turns a checkpoint into a small file to share: `python -m stvsr.export last.ckpt network.safetensors`.

It has a sixth of the size: weights in half precision and the model config, but no training state.
`load_network`, `stvsr-upscale` and `stvsr.evaluate` accept it like a checkpoint.
"""

import argparse
from pathlib import Path

from stvsr.checkpoint import export
from stvsr.cli import one_line_errors


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stvsr.export",
        description="Turns a checkpoint into a small file to share: its weights in half precision.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of stvsr.train, or the authors' .pth")
    parser.add_argument("output", type=Path, help="a new file, NAME.safetensors")
    arguments = parser.parse_args()
    with one_line_errors():
        export(arguments.checkpoint, arguments.output)
        print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
