"""Weights published by others: recognised by their tensor names, renamed to ours, every tensor used.

A network lists the files it can load (`weight_files`); here such a file is described and loaded into the network. The
tensors may lie in nested dictionaries, as some programs wrap them; entries that are not tensors are ignored.
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
    """A published weight file and how its tensors map to ours.

    Attributes:
        name: the file's name, as published.
        project: where it is published.
        signature: a tensor name, without prefixes, that only this kind of file has.
        renaming: pairs of a pattern and its replacement, applied in order, from their names to ours.
        optional: a pattern of names of ours that such a file may lack; these tensors keep their values.
    """

    name: str
    project: str
    signature: str
    renaming: tuple[tuple[str, str], ...]
    optional: str | None = None

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether tensors, as `find_tensors` returns them, come from this kind of file."""
        return self.signature in tensors

    def rename(self, name: str) -> str:
        """Turns a published tensor name into ours."""
        for pattern, replacement in self.renaming:
            name = re.sub(pattern, replacement, name)
        return name


def find_tensors(content: dict[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a file, by name; keys of nested dictionaries are joined with dots.

    Leading `params.` and `module.`, in which programs wrap a network, are dropped.
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
    """Loads the tensors of a file into a network; none may be left over, missing or given twice.

    Args:
        network: what to fill.
        tensors: as `find_tensors` returns them.
        kind: the kind of file they come from.
        origin: the file, for messages.

    Raises:
        InvalidInput: tensors are unexpected, missing, given twice or of the wrong shape; names the first few.
    """
    new_names = {name: kind.rename(name) for name in tensors}
    renamed = {new_names[name]: tensor for name, tensor in tensors.items()}
    expected = network.state_dict()
    counts = Counter(new_names.values())
    faults = {
        "unexpected tensors": [name for name, new_name in new_names.items() if new_name not in expected],
        "tensors given twice under different names": [
            name for name, new_name in new_names.items() if counts[new_name] > 1
        ],
        "missing tensors": [
            name for name in expected if name not in renamed and not re.search(kind.optional or r"^$", name)
        ],
        "tensors of the wrong shape": [
            f"{name} {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            for name, tensor in renamed.items()
            if name in expected and expected[name].shape != tensor.shape
        ],
    }
    for fault, names in faults.items():
        if names:
            raise InvalidInput(f"{origin}: {fault}: {listed(names, NAMED)}; use the file {kind.name} of {kind.project}")
    network.load_state_dict(renamed, strict=False)
