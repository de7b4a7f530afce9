"""Weights that others publish: recognised by their tensor names, renamed to ours, every tensor used.

A network says which files it takes (`weight_files`); this is what such a file is like, and how it is read into the
network. The tensors may lie in nested dictionaries, as programs wrap them; what is not a tensor is passed over.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from stvsr.errors import InvalidInput, listed

NAMED = 3
"""At most this many tensors are named in an error."""


@dataclass(frozen=True)
class WeightFile:
    """A kind of file.

    Attributes:
        name: of the file, as published.
        project: where it is published.
        signature: a tensor name that occurs in it and in no other kind, after the prefixes are gone.
        renaming: pairs of a pattern and its replacement, applied to each name in this order: theirs to ours.
        optional: a pattern of names of ours that such a file may lack; these tensors keep their values.
    """

    name: str
    project: str
    signature: str
    renaming: tuple[tuple[str, str], ...]
    optional: str | None = None

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether tensors, as `find_tensors` gives them, are of this kind."""
        return self.signature in tensors

    def rename(self, name: str) -> str:
        """A name of theirs as ours."""
        for pattern, replacement in self.renaming:
            name = re.sub(pattern, replacement, name)
        return name


def find_tensors(content: dict[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a file by name: names in nested dictionaries follow each other with dots.

    `params` and `module`, which programs put around a network, are no part of a name.
    """
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        name = re.sub(r"^(params\.|module\.)+", "", f"{prefix}{key}")
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict):
            found |= find_tensors(value, f"{name}.")
    return found


def load_weights(network: nn.Module, tensors: dict[str, Tensor], kind: WeightFile, *, origin: str) -> None:
    """Fills a network with the tensors of a file; nothing is left over, nothing is missing, nothing comes twice.

    Args:
        network: what to fill.
        tensors: as `find_tensors` gives them.
        kind: what they are.
        origin: the file, for messages.

    Raises:
        InvalidInput: tensors that the network does not have, that it lacks, that come twice or have another shape;
            names the first few.
    """
    places = {name: kind.rename(name) for name in tensors}
    renamed = {places[name]: tensor for name, tensor in tensors.items()}
    own = network.state_dict()
    often = Counter(places.values())
    faults = {
        "unexpected tensors": [name for name, place in places.items() if place not in own],
        "tensors given twice under different names": [name for name, place in places.items() if often[place] > 1],
        "missing tensors": [
            name for name in own if name not in renamed and not re.search(kind.optional or r"^$", name)
        ],
        "tensors of the wrong shape": [
            f"{name} {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            for name, tensor in renamed.items()
            if name in own and own[name].shape != tensor.shape
        ],
    }
    for what, names in faults.items():
        if names:
            raise InvalidInput(f"{origin}: {what}: {listed(names, NAMED)}; use the file {kind.name} of {kind.project}")
    network.load_state_dict(renamed, strict=False)
