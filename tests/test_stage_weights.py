"""Weights for the networks of a two-stage system: published files, our checkpoints, and what is refused."""

from datetime import datetime
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stvsr.checkpoint import MODEL_KEY, load_network
from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_interpolation.sepconv import SepConv
from stvsr.models.frame_interpolation.superslomo import SuperSloMo
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.frame_upscaling.rcan import RCAN
from stvsr.models.network import Stage
from stvsr.models.stages import target_of
from stvsr.models.two_stage import TwoStage
from stvsr.stage_weights import load_stage, load_stages

SMALL = {
    "interpolator": (SepConv, {"channels": (4, 4, 4), "taps": 5, "multiple_of": 8}),
    "upscaler": (RCAN, {"channels": 4, "groups": 1, "blocks": 1, "reduction": 2}),
}
"""Small networks: loading works the same at any size."""


def published(network: str) -> dict[str, Tensor]:
    """Tensors with a published file's names and shapes, each filled with its own number, which takes no time."""
    tensors = {}
    layout = Path(__file__).parent / "golden" / f"{network}_layout.tsv"
    for number, line in enumerate(layout.read_text().splitlines(), start=1):
        name, sizes = line.split("\t")
        tensors[name] = torch.tensor(number / 256).expand(*map(int, sizes.split("x")))
    return tensors


@pytest.fixture(scope="module")
def sepconv_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sepconv") / "network-l1.pytorch"
    torch.save(published("sepconv"), path)
    return path


def checkpoint_of_ours(stage: Stage, place: str, path: Path, **settings: object) -> Path:
    config = {"_target_": target_of(TwoStage), place: {"_target_": target_of(type(stage)), **settings}}
    state = {f"network.{place}.{name}": tensor for name, tensor in stage.state_dict().items()}
    torch.save({MODEL_KEY: config, "state_dict": state}, path)
    return path


def alike(one: Stage, other: Stage) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def test_a_published_file_is_a_system_with_the_other_stage_without_learning(sepconv_file: Path) -> None:
    network = load_network(sepconv_file)
    assert isinstance(network, TwoStage)
    assert isinstance(network.upscaler, Bicubic)
    assert not network.training
    stage = SepConv()
    load_stage(stage, sepconv_file)
    assert alike(network.interpolator, stage)
    numbers = sorted(256 * tensor.flatten()[0].item() for tensor in stage.state_dict().values())
    assert numbers == list(range(1, 1 + len(published("sepconv"))))


def test_a_published_file_with_a_date_in_it_is_read(tmp_path: Path) -> None:
    """Super-SloMo's file holds a `datetime`, which `weights_only=True` refuses by default."""
    flat = published("superslomo")
    content: dict[str, object] = {"timestamp": datetime(2018, 9, 1), "epoch": 199, "loss": [1.0]}
    for key in ("state_dictFC", "state_dictAT"):
        content[key] = {name.removeprefix(f"{key}."): t for name, t in flat.items() if name.startswith(key)}
    torch.save(content, tmp_path / "SuperSloMo.ckpt")
    stage = SuperSloMo()
    load_stage(stage, tmp_path / "SuperSloMo.ckpt")
    assert torch.equal(stage.state_dict()["flow.last.weight"], flat["state_dictFC.conv3.weight"])


@pytest.mark.parametrize("place", ["interpolator", "upscaler"])
def test_a_checkpoint_of_ours_gives_the_stage_it_has(tmp_path: Path, place: str) -> None:
    kind, sizes = SMALL[place]
    torch.manual_seed(0)
    trained, stage = kind(**sizes), kind(**sizes)
    assert not alike(trained, stage)
    load_stage(stage, checkpoint_of_ours(trained, place, tmp_path / "last.ckpt"))
    assert alike(trained, stage)


def test_a_system_takes_each_stages_file_and_stages_without_parameters_need_none(
    sepconv_file: Path, tmp_path: Path
) -> None:
    kind, sizes = SMALL["upscaler"]
    trained = kind(**sizes)
    files = {"sepconv": str(sepconv_file), "rcan": str(checkpoint_of_ours(trained, "upscaler", tmp_path / "a.ckpt"))}
    interpolator, upscaler = SepConv(), kind(**sizes)
    load_stages(TwoStage(interpolator=interpolator, upscaler=upscaler), files, required=True)
    assert next(interpolator.parameters()).unique().item() == 1 / 256
    assert alike(trained, upscaler)
    load_stages(TwoStage(interpolator=Blend(), upscaler=Bicubic()), files, required=True)


def test_a_missing_file_is_one_line_that_says_which_from_which_project() -> None:
    kind, sizes = SMALL["interpolator"]
    system = TwoStage(interpolator=kind(**sizes), upscaler=Bicubic())
    load_stages(system, {"sepconv": None}, required=False)
    with pytest.raises(InvalidInput) as caught:
        load_stages(system, {"sepconv": None}, required=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "weights.sepconv=FILE" in message
    assert "network-l1.pytorch of github.com/sniklaus/sepconv-slomo" in message


def test_of_a_stage_without_published_weights_a_checkpoint_is_expected() -> None:
    class Own(Stage):
        title = "own"

    with pytest.raises(InvalidInput, match=r"none: no such file; expected a checkpoint of stvsr\.train$"):
        load_stage(Own(), "none")


def test_a_file_of_another_network_is_refused(sepconv_file: Path, tmp_path: Path) -> None:
    interpolator, upscaler = (kind(**sizes) for kind, sizes in SMALL.values())
    with pytest.raises(InvalidInput, match="holds no RCAN"):
        load_stage(upscaler, sepconv_file)
    with pytest.raises(InvalidInput, match="holds no SepConv"):
        load_stage(interpolator, checkpoint_of_ours(upscaler, "upscaler", tmp_path / "a.ckpt"))
    with pytest.raises(InvalidInput, match=r"gone\.pth: no such file"):
        load_stage(interpolator, tmp_path / "gone.pth")


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    kind, sizes = SMALL["interpolator"]
    small = kind(**sizes)
    with pytest.raises(InvalidInput, match="do not fit"):
        load_stage(SepConv(), checkpoint_of_ours(small, "interpolator", tmp_path / "small.ckpt"))
    settings = {"channels": [4, 4, 4], "taps": 5}
    says = (
        r"its SepConv was trained with other settings; add them: "
        r"'\+\+frame_interpolator\.channels=\[4,4,4\]' \+\+frame_interpolator\.taps=5 \(if"
    )
    with pytest.raises(InvalidInput, match=says):
        load_stage(SepConv(), checkpoint_of_ours(small, "interpolator", tmp_path / "small.ckpt", **settings))
