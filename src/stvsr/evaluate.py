"""Scores a network: `python -m stvsr.evaluate checkpoint=FILE data=vimeo90k data.root=DIR`.

Prints PSNR and SSIM on Y per motion split and writes `results.json`, `results.csv` (a row for each split) and
`clips.csv` (a row for each clip). The protocol is the paper's: see `evaluation/scores.py` and `metrics.py`.
"""

import sys
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from stvsr.checkpoint import load_network
from stvsr.cli import entry_point
from stvsr.errors import InvalidInput
from stvsr.evaluation.scores import ClipScore, score_clips
from stvsr.evaluation.tables import Row, as_text, summarise, write_results
from stvsr.models.requirements import Network, run_padded


def evaluate(config: DictConfig) -> list[Row]:
    """Scores what a config names on the test clips of its data, and writes the results.

    Args:
        config: composed from `conf/evaluate.yaml`.

    Returns:
        A row for each motion split that occurs, and one for their mean.

    Raises:
        UserError: the checkpoint or the data is not as it should be.
    """
    network = chosen_network(config)
    device = chosen_device(config.device)
    data = instantiate(config.loader)
    data.setup("test")

    network.to(device)
    loader = data.test_dataloader()
    scores: list[ClipScore] = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc="scoring", unit="batch", file=sys.stderr):
            prediction = run_padded(network, batch.lr.to(device))
            if not prediction.isfinite().all():
                raise InvalidInput(f"clip {batch.names[0]}: the network's answer is not finite; use another checkpoint")
            scores += score_clips(prediction, batch.hr.to(device), batch.names, batch.motions)
    rows = summarise(scores)
    write_results(Path(config.output_dir), rows, scores)
    return rows


def chosen_network(config: DictConfig) -> Network:
    """The network of `checkpoint`, or the `method`; exactly one of them is given."""
    method = config.get("method")
    if (config.checkpoint is None) == (method is None):
        raise InvalidInput(
            "give exactly one of checkpoint=FILE (a trained network) and method=bicubic_blend (no training needed)"
        )
    network: Network = instantiate(method).eval() if method is not None else load_network(config.checkpoint)
    return network


def chosen_device(name: str) -> torch.device:
    """The device a name means; `auto` is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InvalidInput(
            f"device={name}: not usable here; expected auto, cpu, or the name of a GPU there is"
        ) from None
    return device


@entry_point("evaluate")
def main(config: DictConfig) -> None:
    """Scores, prints the table and says where it is."""
    rows = evaluate(config)
    print(as_text(rows))
    print(f"tables: {Path(config.output_dir)}")


if __name__ == "__main__":
    main()
