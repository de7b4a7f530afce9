"""The summary of a training run states only what is true."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from stvsr.training.summary import summary


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([], "learning rate 0.002, 32-true, begun with blended frames"),
        (["~optimizer.lr"], "LR pixels, 32-true, begun with blended frames"),
        (["blended_start=false"], "begun with random weights"),
        (["initial_weights=b.ckpt"], "begun with the weights of b.ckpt"),
    ],
)
def test_a_training_is_said_to_begin_as_it_does_and_to_have_no_rate_that_it_was_not_given(
    configure: Callable[..., DictConfig], settings: list[str], says: str
) -> None:
    """Weights take precedence over blended frames."""
    said = summary(configure("train", "experiment=study_cpu", "data.root=videos", *settings))
    assert said.startswith("16 channels, 2 + 4 residual blocks; 800 steps of 8 crops of 16x16 LR pixels, ")
    assert said.endswith(says)
