"""The whole process in miniature: `make demo` trains a small network on generated clips, scores it and shows it.

Minutes of CPU training show how everything works; they are not a result. The table says how the network compares with
bicubic + blending, whichever is better.
"""

import argparse
import shlex
import time
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from stvsr.checkpoint import load_network
from stvsr.cli import one_line_errors
from stvsr.config import CONFIG_DIR, override
from stvsr.data.datasets import ValidationClips
from stvsr.errors import Interrupted, InvalidInput
from stvsr.evaluate import evaluate
from stvsr.evaluation.figures import show_clip
from stvsr.evaluation.report import write_report
from stvsr.evaluation.rows import Row
from stvsr.train import train

SMALL_CLIPS = ["data.train_source.height=96", "data.train_source.width=96"]
"""Large enough for the demo's crops, and quicker to generate."""

SHOWN_CLIP = 1
"""The clip shown, of medium motion."""


def demo(folder: Path, overrides: list[str], *, test_clips: int = 30) -> None:
    """Trains, scores and shows a small `experiment=full_bidir`.

    Args:
        folder: where everything is written.
        overrides: further settings of the training run.
        test_clips: how many clips to score.

    Raises:
        InvalidInput: an override sets `output_dir`.
    """
    for setting in overrides:
        if setting.lstrip("+~").partition("=")[0] == "output_dir":
            raise InvalidInput(f"{setting}: expected training settings only; set the folder with --output DIR")
    started = time.monotonic()
    checkpoint = folder / "train" / "checkpoints" / "last.ckpt"
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        print("1. training a small network on generated clips")
        train(_config("train", folder / "train", ["experiment=full_bidir", "recipe=demo", *SMALL_CLIPS, *overrides]))
        print("2. scoring it, and bicubic + blending")
        common = [f"data.test_source.source.clips={test_clips}", "logger=csv"]
        scoring = _config("evaluate", folder / "network", [*common, override("checkpoint", checkpoint), "name=network"])
        network = evaluate(scoring)
        bicubic = evaluate(_config("evaluate", folder / "bicubic_blend", [*common, "method=bicubic_blend"]))
    write_report(folder, [folder / "bicubic_blend", folder / "network"])
    picture = folder / "comparison.png"
    clips = ValidationClips(source=instantiate(scoring.data.test_source.source))
    networks = {"ours, minutes of training": load_network(checkpoint)}
    show_clip(networks, clips[SHOWN_CLIP], picture)

    print(as_comparison(network.rows, bicubic.rows))
    print(f"\npicture:     {picture}\nreport:      {folder}/report.html")
    print(f"tables:      {folder}/network, {folder}/bicubic_blend")
    print(f"checkpoint:  {checkpoint}\nlogs:        {folder}/train")
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes")


def as_comparison(network: list[Row], bicubic: list[Row]) -> str:
    """Both methods' scores for each motion split, and a line on which is better."""
    lines = [
        f"{'':10}{'bicubic + blending':>24}{'network':>24}",
        f"{'motion':<10}" + f"{'PSNR Y':>15}{'SSIM Y':>9}" * 2,
    ]
    for learned, baseline in zip(network, bicubic, strict=True):
        scores = (row.scores[name] for row in (baseline, learned) for name in ("psnr_y", "ssim_y"))
        lines.append(f"{learned.motion:<10}" + "{:15.2f}{:9.4f}{:15.2f}{:9.4f}".format(*scores))
    behind = [
        learned.motion for learned, baseline in zip(network, bicubic, strict=True) if not ahead(learned, baseline)
    ]
    if behind:
        lines.append(
            f"The network does not beat bicubic + blending on: {', '.join(behind)}. "
            "It saw minutes of training; the paper's saw days."
        )
    else:
        lines.append(
            "The network is ahead on every split, after minutes of training on clips of this kind; not a result."
        )
    return "\n".join(lines)


def ahead(ours: Row, theirs: Row) -> bool:
    """Whether the first row has the higher PSNR."""
    first, second = ours.scores["psnr_y"], theirs.scores["psnr_y"]
    return first is not None and second is not None and first > second


def _config(name: str, folder: Path, overrides: list[str]) -> DictConfig:
    return compose(name, [*overrides, override("output_dir", folder)])


def main() -> None:
    """Runs the demo from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stvsr.demo", description="Train, score and show a small network in minutes."
    )
    folder = Path("outputs/demo") / time.strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument(
        "--output",
        type=Path,
        default=folder,
        help="folder for everything it writes: a new one, or that of a stopped demo",
    )
    parser.add_argument("overrides", nargs="*", help="further training settings, such as trainer.max_steps=100")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    command = shlex.join(["python", "-m", "stvsr.demo", "--output", str(output), *arguments.overrides])
    with one_line_errors():
        try:
            demo(output, arguments.overrides)
        except InvalidInput as error:
            raise InvalidInput(str(error).replace("another output_dir", "another --output")) from None
        except (Interrupted, KeyboardInterrupt) as stop:
            # Only training and scoring say how far they came.
            done = stop.done if isinstance(stop, Interrupted) else "stopped"
            raise Interrupted(done, f"to continue: {command}") from None


if __name__ == "__main__":
    main()
