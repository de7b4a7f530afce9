"""The small network learns: overfitted on one generated clip it leaves bicubic + blending behind."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from stvsr.data.datasets import to_float
from stvsr.data.degradation import downsample
from stvsr.data.synthetic import SyntheticScenes
from stvsr.evaluation.metrics import psnr_y
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.training.losses import charbonnier
from stvsr.training.schedule import cosine_restarts

STEPS = 700


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_small_network_overfitted_on_one_clip_beats_bicubic_and_blending_by_3_db(
    configure: Callable[..., DictConfig],
) -> None:
    torch.manual_seed(0)
    source = SyntheticScenes(clips=3, height=128, width=128, seed=5)
    hr = to_float(source.read(1, np.random.default_rng(0)).frames)[None]
    lr = downsample(hr[:, ::2])
    network = instantiate(configure("train", "experiment=full_bidir", "recipe=demo").model)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    schedule = cosine_restarts(optimizer, period=STEPS, minimum=1e-5, warmup=20)
    for _ in range(STEPS):
        optimizer.zero_grad()
        charbonnier(network(lr), hr).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        ours, bicubic = (psnr_y(method(lr), hr).mean().item() for method in (network.eval(), BicubicBlend()))
    assert ours >= bicubic + 3, f"{ours:.2f} dB against {bicubic:.2f} dB"
