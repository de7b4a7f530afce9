"""The weights that come with the package: the paper's network, useful as they are and for further training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from stvsr.checkpoint import STARTER, load_network, variant_of, weights_for
from stvsr.config import resolved
from stvsr.data.clip import to_float
from stvsr.data.degradation import downsample
from stvsr.data.synthetic import SyntheticScenes
from stvsr.evaluate import evaluate
from stvsr.evaluation.costs import Cost
from stvsr.models.bicubic_blend import BicubicBlend

Configure = Callable[..., DictConfig]


def test_the_starter_is_the_papers_network(configure: Configure) -> None:
    network = load_network(STARTER)
    paper = instantiate(configure("train", "experiment=full_bidir").model)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in paper.state_dict().items()}
    assert variant_of(STARTER) == "e"
    assert not network.training


def test_a_training_can_go_on_from_it(configure: Configure) -> None:
    weights = weights_for(STARTER, resolved(configure("train", "experiment=starter").model))
    network = load_network(STARTER)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("scene", range(3))
def test_it_is_closer_to_scenes_it_has_not_seen_than_enlarged_blended_frames(scene: int) -> None:
    """Given and synthesised frames both are; training drew scenes from another seed."""
    scenes = SyntheticScenes(clips=3, height=128, width=128, seed=77)
    hr = to_float(scenes.read(scene, np.random.default_rng(0)).frames)
    lr = downsample(hr[::2])[None]
    with torch.no_grad():
        ours, blended = ((net(lr)[0].clamp(0, 1) - hr).square() for net in (load_network(STARTER), BicubicBlend()))
    for frames in (slice(0, None, 2), slice(1, None, 2)):
        assert ours[frames].mean() < blended[frames].mean()


def test_it_is_scored_by_its_name(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Counting what a network of this size computes takes longer than scoring.
    monkeypatch.setattr("stvsr.evaluate.cost_of", lambda job, records: Cost())
    size = [f"data.test_source.source.{key}" for key in ("clips=1", "height=64", "width=64")]
    config = configure(
        "evaluate", f"checkpoint={STARTER}", *size, "logger=csv", "workers=0", f"output_dir='{tmp_path}'"
    )
    evaluate(config)
    assert f'"{STARTER}"' in (tmp_path / "results.json").read_text()
