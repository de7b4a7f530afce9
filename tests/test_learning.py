"""The small network learns: overfitted on one generated clip of fast motion it leaves bicubic + blending behind."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from stvsr.data.synthetic import SyntheticScenes

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "overfit.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)  # two shared cores may take half an hour
def test_small_network_overfitted_on_one_clip_beats_bicubic_and_blending_by_3_db() -> None:
    spec = importlib.util.spec_from_file_location("overfit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    frames = SyntheticScenes(clips=6, height=128, width=128, seed=5).read(5, np.random.default_rng(0)).frames
    *_, (_, ours, bicubic) = script.overfit(frames, steps=800)
    assert ours >= bicubic + 3, f"{ours:.2f} dB against {bicubic:.2f} dB"
