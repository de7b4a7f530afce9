"""Initial weights of (e) from a trained (b): the recurrence starts by passing every frame's features on.

The recurrence takes most of a training step of (e) on a CPU, and is of little use until features, interpolation and
reconstruction have learned something. These are trained without it, at several times as many clips a second; then it
is inserted. Its states carry the features unchanged, up to the curvature of two tanh; from there the gates learn what
else to keep, and the layers that predict offsets receive pictures from the first step on.

Not in the paper; for short training runs. The architecture is the paper's.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stvsr.models.carrying import carry_through, offsets_see_pictures
from stvsr.models.propagation import Bidirectional, ConvLSTM, DeformableConvLSTM, NoPropagation

PART = "propagation"
"""Where (b) and (e) differ: a part of the network and its config."""

TRAINING_ONLY = frozenset({"checkpointing"})
"""Settings in a network's config that decide how gradients are computed, but not the network."""


def can_grow(smaller: dict[str, Any], larger: dict[str, Any]) -> bool:
    """Whether `smaller` describes a (b) and `larger` an (e) that differs from it only in the propagation."""
    if (_class_name(smaller), _class_name(larger)) != (NoPropagation.__name__, Bidirectional.__name__):
        return False
    if _class_name(larger[PART], "recurrence") not in (ConvLSTM.__name__, DeformableConvLSTM.__name__):
        return False
    ignored = TRAINING_ONLY | {PART}
    one, other = ({key: value for key, value in config.items() if key not in ignored} for config in (smaller, larger))
    return one == other


def handing_on(propagation: nn.Module) -> dict[str, Tensor]:
    """The weights of a recurrence that passes features on.

    Args:
        propagation: an untrained `Bidirectional`; changed in place.

    Returns:
        Its tensors, by their names in a whole network.
    """
    assert isinstance(propagation, Bidirectional)
    carry_through(propagation, torch.arange(propagation.fuse.out_channels))
    offsets_see_pictures(propagation)
    return {f"{PART}.{name}": tensor for name, tensor in propagation.state_dict().items()}


def _class_name(config: dict[str, Any], part: str = PART) -> str:
    """The name of a part's class if it is one of `stvsr.models.propagation`, otherwise an empty string."""
    settings = config.get(part)
    module, _, name = str(settings.get("_target_") if isinstance(settings, dict) else "").rpartition(".")
    return name if module == Bidirectional.__module__ else ""
