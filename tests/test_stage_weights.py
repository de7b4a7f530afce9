"""Weights of the networks of a two-stage system: published files, checkpoints of ours, and what is refused."""

from collections.abc import Callable
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


@pytest.fixture
def sepconv_file(golden_state: Callable[..., dict[str, Tensor]], tmp_path: Path) -> Path:
    torch.save(golden_state("sepconv", [(".7.weight", 0.1)], 1.4), tmp_path / "network-l1.pytorch")
    return tmp_path / "network-l1.pytorch"


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


def test_a_published_file_with_a_date_in_it_is_read(
    golden_state: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    """Super-SloMo's file tells when it was written, which `weights_only=True` refuses by itself."""
    flat = golden_state("superslomo", [("conv3.weight", 5.0)], 1.8)
    content: dict[str, object] = {"timestamp": datetime(2018, 9, 1), "epoch": 199, "loss": [1.0]}
    for key in ("state_dictFC", "state_dictAT"):
        content[key] = {name.removeprefix(f"{key}."): t for name, t in flat.items() if name.startswith(key)}
    torch.save(content, tmp_path / "SuperSloMo.ckpt")
    stage = SuperSloMo()
    load_stage(stage, tmp_path / "SuperSloMo.ckpt")
    assert torch.equal(stage.state_dict()["flow.last.weight"], flat["state_dictFC.conv3.weight"])


@pytest.mark.parametrize("place", ["interpolator", "upscaler"])
def test_a_checkpoint_of_ours_gives_the_stage_it_has(tmp_path: Path, place: str) -> None:
    kind = SepConv if place == "interpolator" else RCAN
    torch.manual_seed(0)
    trained, stage = kind(), kind()
    load_stage(stage, checkpoint_of_ours(trained, place, tmp_path / "last.ckpt"))
    assert alike(trained, stage)


def test_a_system_takes_each_stages_file_and_stages_without_parameters_need_none(
    sepconv_file: Path, tmp_path: Path
) -> None:
    files = {"sepconv": str(sepconv_file), "rcan": str(checkpoint_of_ours(RCAN(), "upscaler", tmp_path / "a.ckpt"))}
    for system in (
        TwoStage(interpolator=SepConv(), upscaler=RCAN()),
        TwoStage(interpolator=Blend(), upscaler=Bicubic()),
    ):
        load_stages(system, files, required=True)


def test_a_missing_file_is_one_line_that_says_which_from_which_project() -> None:
    system = TwoStage(interpolator=SepConv(), upscaler=Bicubic())
    load_stages(system, {"sepconv": None}, required=False)
    with pytest.raises(InvalidInput) as caught:
        load_stages(system, {"sepconv": None}, required=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "weights.sepconv=FILE" in message
    assert "network-l1.pytorch of github.com/sniklaus/sepconv-slomo" in message


def test_a_file_of_another_network_is_refused(sepconv_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no RCAN"):
        load_stage(RCAN(), sepconv_file)
    with pytest.raises(InvalidInput, match="holds no SepConv"):
        load_stage(SepConv(), checkpoint_of_ours(RCAN(), "upscaler", tmp_path / "a.ckpt"))
    with pytest.raises(InvalidInput, match=r"gone\.pth: no such file"):
        load_stage(SepConv(), tmp_path / "gone.pth")


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    small = SepConv(channels=(4, 4, 4), taps=5, multiple_of=8)
    with pytest.raises(InvalidInput, match="do not fit"):
        load_stage(SepConv(), checkpoint_of_ours(small, "interpolator", tmp_path / "small.ckpt"))
    settings = {"channels": [4, 4, 4], "taps": 5}
    says = (
        r"its SepConv was trained with settings of its own; add them: "
        r"'\+\+frame_interpolator\.channels=\[4,4,4\]' \+\+frame_interpolator\.taps=5 \(if"
    )
    with pytest.raises(InvalidInput, match=says):
        load_stage(SepConv(), checkpoint_of_ours(small, "interpolator", tmp_path / "small.ckpt", **settings))
