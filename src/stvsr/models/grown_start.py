"""A start of (e) where a trained (b) ends: the recurrence begins as one that hands every frame's features on.

The recurrence is most of what a training step of (e) costs on a CPU, and does little for it until features,
interpolation and reconstruction are worth something. Those are learned without it, several times as many clips a
second; then it is put in between them. Its states carry the features as they are, up to the bend of two tanh; the gates
learn from there what else to keep, and what predicts offsets sees pictures from the first step on.

Not in the paper; for short trainings. The network is the paper's.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stvsr.models.carrying import carry_through, offsets_see_pictures
from stvsr.models.propagation import Bidirectional, ConvLSTM, DeformableConvLSTM, NoPropagation

PART = "propagation"
"""Of a network, and of its config."""

TRAINING_ONLY = frozenset({"checkpointing"})
"""Settings in the config of a network that say how gradients are computed, and nothing of the network."""


def can_grow(smaller: dict[str, Any], larger: dict[str, Any]) -> bool:
    """Whether the network of one config, (b), is that of another, (e), but for the propagation."""
    if (_class(smaller), _class(larger)) != (NoPropagation.__name__, Bidirectional.__name__):
        return False
    if _class(larger[PART], "recurrence") not in (ConvLSTM.__name__, DeformableConvLSTM.__name__):
        return False
    beside = TRAINING_ONLY | {PART}
    one, other = ({key: value for key, value in config.items() if key not in beside} for config in (smaller, larger))
    return one == other


def handing_on(propagation: nn.Module) -> dict[str, Tensor]:
    """The weights of a recurrence that hands features on.

    Args:
        propagation: an untrained `Bidirectional`; it is changed.

    Returns:
        By the names they have in a whole network.
    """
    assert isinstance(propagation, Bidirectional)
    carry_through(propagation, torch.arange(propagation.fuse.out_channels))
    offsets_see_pictures(propagation)
    return {f"{PART}.{name}": tensor for name, tensor in propagation.state_dict().items()}


def _class(config: dict[str, Any], part: str = PART) -> str:
    """The name of a part's class, if it is one of the propagations here; else nothing."""
    settings = config.get(part)
    module, _, name = str(settings.get("_target_") if isinstance(settings, dict) else "").rpartition(".")
    return name if module == Bidirectional.__module__ else ""
