"""Scoring prints and writes what the network really scores."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from stvsr.checkpoint import MODEL_KEY
from stvsr.data.datasets import ScoringClips
from stvsr.evaluate import evaluate
from stvsr.evaluation.metrics import psnr_y, ssim_y
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.requirements import run_padded
from stvsr.train import resolved

SMALL_TEST = [
    "data.test_source.clips=6",
    "data.test_source.height=36",
    "data.test_source.width=44",
    "loader.workers=0",
]


@pytest.mark.parametrize("batch", [1, 4])
def test_rows_are_means_of_frames_then_clips(configure: Callable[..., DictConfig], tmp_path: Path, batch: int) -> None:
    config = configure(
        "evaluate",
        "method=bicubic_blend",
        *SMALL_TEST,
        f"output_dir='{tmp_path}'",
        f"loader.eval_batch_size={batch}",
    )
    rows = {row.name: row for row in evaluate(config)}
    clips = ScoringClips(source=instantiate(config.data.test_source)())
    for split in ("slow", "medium", "fast"):
        chosen = [clip for clip in (clips[i] for i in range(6)) if clip.motion == split]
        predictions = [BicubicBlend()(clip.lr[None])[0] for clip in chosen]
        psnr, ssim = (
            torch.stack([metric(p, clip.hr).mean() for p, clip in zip(predictions, chosen, strict=True)]).mean()
            for metric in (psnr_y, ssim_y)
        )
        assert rows[split].clips == 2
        assert rows[split].psnr_y == pytest.approx(psnr.item())
        assert rows[split].ssim_y == pytest.approx(ssim.item())
    assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["psnr_y"] == rows["slow"].psnr_y


def test_a_checkpoint_scores_as_its_network_does(
    configure: Callable[..., DictConfig],
    small_run: Callable[..., DictConfig],
    small_network: Callable[..., nn.Module],
    tmp_path: Path,
) -> None:
    """36x44 frames are 9x11 in LR: the network needs padding, the caller does not care."""
    network = small_network("e")
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({MODEL_KEY: resolved(small_run().model), "state_dict": state}, tmp_path / "a.ckpt")
    config = configure("evaluate", f"checkpoint='{tmp_path}/a.ckpt'", *SMALL_TEST, f"output_dir='{tmp_path}/out'")
    rows = evaluate(config)
    clips = ScoringClips(source=instantiate(config.data.test_source)())
    with torch.no_grad():
        slow = [psnr_y(run_padded(network, clips[i].lr[None])[0], clips[i].hr).mean().item() for i in (0, 3)]
    assert rows[0].name == "slow"
    assert rows[0].psnr_y == pytest.approx(sum(slow) / 2, rel=1e-6)
