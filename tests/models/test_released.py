"""Networks of another size made with the authors' code load too: shapes tell the size."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from stvsr.checkpoint import load_network
from stvsr.errors import InvalidInput
from stvsr.models.released import RELEASED, from_released

LAYOUT = Path(__file__).parents[1] / "golden" / "released_layout.tsv"


def test_a_network_of_another_size_made_with_their_code_loads(
    small_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    groups = [f"model.{part}.deformable_groups=4" for part in ("interpolation", "propagation.recurrence")]
    small = ["model.channels=16", "model.feature_blocks=2", "model.reconstruction_blocks=3", *groups]
    state = small_network("e", 0, *small).state_dict()
    theirs = {RELEASED.rename(name): name for name in (row.split("\t")[0] for row in LAYOUT.read_text().splitlines())}
    torch.save({theirs[name]: tensor for name, tensor in state.items()}, tmp_path / "small.pth")
    read = load_network(tmp_path / "small.pth").state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_a_file_without_the_tensors_that_tell_the_size_is_refused_in_words() -> None:
    with pytest.raises(InvalidInput, match=r"^their\.pth: .* lack features\.head\.weight \(our name\)"):
        from_released({RELEASED.signature: torch.ones(1)}, origin="their.pth")
