"""Published files are read whole: every tensor finds its place, or the error names what does not."""

import pytest
import torch
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.weight_files import WeightFile, find_tensors, load_weights

KIND = WeightFile(
    name="net.pth", project="github.com/somebody/net", signature="head.0.weight", renaming=((r"^head\.0\.", "first."),)
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.BatchNorm2d(4)


def published() -> dict[str, Tensor]:
    return {name.replace("first.", "head.0."): torch.ones_like(tensor) for name, tensor in Small().state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        {"a.b": torch.ones(1)},
        {"a": {"b": torch.ones(1)}},
        {"module.a.b": torch.ones(1)},
        {"params": {"a.b": torch.ones(1)}, "epoch": 3},
        {"params": {"module.a.b": torch.ones(1)}},
    ],
    ids=["plain", "nested", "data-parallel", "basicsr", "both"],
)
def test_wrappers_are_no_part_of_a_name(content: dict[str, object]) -> None:
    assert list(find_tensors(content)) == ["a.b"]


def test_names_of_all_levels_follow_each_other() -> None:
    assert list(find_tensors({"a": {"b": {"c": torch.ones(1)}}})) == ["a.b.c"]


def test_every_tensor_finds_its_place() -> None:
    network, tensors = Small(), published()
    assert KIND.fits(tensors)
    load_weights(network, tensors, KIND, origin="net.pth")
    assert all((tensor == 1).all() for tensor in network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head.1.weight": torch.ones(2)}, r"unexpected tensors: head\.1\.weight"),
        ({"head.0.bias": None}, r"missing tensors: first\.bias"),
        ({"head.0.bias": torch.ones(5)}, r"first\.bias \(5,\), not \(4,\)"),
        ({"first.bias": torch.ones(4)}, r"tensors given twice under different names: head\.0\.bias, first\.bias"),
        ({f"more.{i}": torch.ones(1) for i in range(5)}, r"more\.0, more\.1, more\.2 and 2 more"),
    ],
    ids=["left-over", "missing", "shape", "twice", "many"],
)
def test_what_does_not_fit_is_named_and_nothing_is_filled(change: dict[str, Tensor | None], says: str) -> None:
    network, tensors = Small(), {**published(), **change}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InvalidInput, match=says) as caught:
        load_weights(network, {name: t for name, t in tensors.items() if t is not None}, KIND, origin="net.pth")
    assert "use the file net.pth of github.com/somebody/net" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_optional_tensors_keep_their_values() -> None:
    kind = WeightFile(
        name=KIND.name,
        project=KIND.project,
        signature=KIND.signature,
        renaming=KIND.renaming,
        optional=r"num_batches_tracked$",
    )
    tensors = published()
    del tensors["second.num_batches_tracked"]
    network = Small()
    load_weights(network, tensors, kind, origin="net.pth")
    assert network.second.num_batches_tracked == 0
    with pytest.raises(InvalidInput, match="missing tensors: second"):
        load_weights(network, tensors, KIND, origin="net.pth")


def test_as_many_left_over_as_are_named_have_no_others() -> None:
    tensors = published() | {f"x.{number}": torch.ones(1) for number in range(3)}
    with pytest.raises(InvalidInput, match=r"x\.0, x\.1, x\.2; use the file"):
        load_weights(Small(), tensors, KIND, origin="net.pth")


def test_a_tensor_of_as_many_numbers_in_another_shape_does_not_fit() -> None:
    tensors = published() | {"head.0.weight": torch.ones(3, 4, 1, 1)}
    with pytest.raises(InvalidInput, match=r"first\.weight \(3, 4, 1, 1\), not \(4, 3, 1, 1\)"):
        load_weights(Small(), tensors, KIND, origin="net.pth")
