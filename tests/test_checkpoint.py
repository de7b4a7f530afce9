"""One file, one network: what loads, what is refused, and that it computes what the authors' network computes."""

import io
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stvsr.checkpoint import MODEL_KEY, VARIANT_KEY, export, load_network, read_run, variant_of
from stvsr.config import resolved
from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.dain import DAIN
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.stages import target_of
from stvsr.models.two_stage import TwoStage

GOLDEN = Path(__file__).parent / "golden"


def reproducible_fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight fill of tests/golden/README.md."""
    z = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).standard_normal(shape)
    if len(shape) == 1:
        return torch.from_numpy(z * (0.5 if "conv_offset_mask" in name else 0.1)).float()
    gain = 0.7 if "conv_offset_mask" in name else 0.3 if "recon_trunk" in name or "feature_extraction" in name else 1.2
    return torch.from_numpy(z * gain / np.sqrt(np.prod(shape[1:]))).float()


def released_state() -> dict[str, Tensor]:
    rows = [line.split("\t") for line in (GOLDEN / "released_layout.tsv").read_text().splitlines()]
    return {name: reproducible_fill(name, tuple(map(int, shape.split("x")))) for name, shape in rows}


def test_released_weights_compute_what_the_authors_network_computes(tmp_path: Path) -> None:
    """Tolerance 1e-5 of the output's std: float32 sums in another order differ by 2e-6 of it (golden/README.md)."""
    torch.save(released_state(), tmp_path / "released.pth")
    network = load_network(tmp_path / "released.pth")
    lr = torch.from_numpy(np.random.RandomState(2020).random_sample((2, 4, 3, 24, 32))).float()
    with torch.no_grad():
        output = network(lr)
    golden = np.load(GOLDEN / "zooming_slow_mo.npz")
    difference = np.abs(output[:, :, :, 3::8, 5::8].numpy() - golden["samples"]).max() / golden["std"]
    assert difference < 1e-5, f"off by {difference:.1e} of the standard deviation"
    assert abs(output.mean().item() - golden["mean"]) < 1e-5 * golden["std"]
    assert not network.training


def test_released_file_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    state = released_state()
    del state["recon_trunk.7.conv1.bias"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(InvalidInput, match=r"do not fit .*trunk\.7\.conv1\.bias"):
        load_network(tmp_path / "cut.pth")


@pytest.fixture
def saved(small_run: Callable[..., Any], small_network: Callable[..., nn.Module], tmp_path: Path) -> dict[str, Any]:
    """What a checkpoint of variant (e) holds, as far as `load_network` cares."""
    config = resolved(small_run("ablation=e").model)
    state = {f"network.{name}": tensor for name, tensor in small_network("e").state_dict().items()}
    return {MODEL_KEY: config, "state_dict": state}


def write(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_refused(path: Path, why: str) -> None:
    """Asserts a refusal in one line that names the file and the reason."""
    with pytest.raises(InvalidInput) as refused:
        load_network(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: {why}")
    assert "\n" not in said


# How the reasons begin.
NEITHER = "neither a checkpoint of stvsr (no entry 'stvsr_model') nor the authors' released weights; give a file"
NO_SAFETENSORS = "not a .safetensors file, or a damaged one; give a file of stvsr.export"
NO_CHECKPOINT = "not a checkpoint, or a damaged one; give a file that stvsr.train wrote"


def test_checkpoint_of_ours_gives_back_the_network(
    saved: dict[str, Any], small_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    network = load_network(write(saved, tmp_path / "a.ckpt"))
    lr = torch.rand(1, 2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(lr), small_network("e")(lr))
    assert not network.training


def test_an_exported_network_is_the_same_but_for_half_precision(
    saved: dict[str, Any], small_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    source, exported = write(saved | {VARIANT_KEY: "e"}, tmp_path / "a.ckpt"), tmp_path / "a.safetensors"
    export(source, exported)
    assert exported.stat().st_size < 0.6 * source.stat().st_size
    assert variant_of(exported) == "e"
    halved = {name: tensor.half().float() for name, tensor in small_network("e").state_dict().items()}
    read = load_network(exported).state_dict()
    assert read.keys() == halved.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in halved.items())


def test_an_export_of_weights_without_a_variant_has_none_however_often_exported(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    export(write(saved, tmp_path / "a.ckpt"), once)
    export(once, twice)
    assert variant_of(once) is None
    assert variant_of(twice) is None


def test_an_exported_file_may_be_read_by_whoever_may_read_others_written_here(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    source, exported, other = write(saved, tmp_path / "a.ckpt"), tmp_path / "a.safetensors", tmp_path / "other"
    other.touch()
    export(source, exported)
    assert exported.stat().st_mode == other.stat().st_mode


def test_an_export_is_refused_before_anything_is_written(saved: dict[str, Any], tmp_path: Path) -> None:
    source = write(saved, tmp_path / "a.ckpt")
    with pytest.raises(InvalidInput, match=r"ends in \.safetensors"):
        export(source, tmp_path / "a.pt")
    saved["state_dict"].popitem()
    lacking = write(saved, tmp_path / "b.ckpt")
    with pytest.raises(InvalidInput, match="do not fit"):
        export(lacking, tmp_path / "b.safetensors")
    assert {path.suffix for path in tmp_path.iterdir()} == {".ckpt"}


CUT_OFF = (16).to_bytes(8, "little") + b"{}"


@pytest.mark.parametrize("content", [b"", b"text\n", CUT_OFF], ids=["empty", "text", "cut off"])
def test_what_is_no_safetensors_file_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert_refused(path, NO_SAFETENSORS)


def test_a_safetensors_file_that_is_not_ours_is_named_in_one_line(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert_refused(tmp_path / "a.safetensors", NEITHER)


def test_a_safetensors_file_cannot_be_resumed_from(saved: dict[str, Any], tmp_path: Path) -> None:
    export(write(saved, tmp_path / "a.ckpt"), tmp_path / "a.safetensors")
    with pytest.raises(InvalidInput, match="weights but no training state"):
        read_run(tmp_path / "a.safetensors", saved[MODEL_KEY])


FOREIGN, LACKING = "only classes of", "which this stvsr lacks"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("os.system", FOREIGN),
        ("torch.load", FOREIGN),
        ("stvsr.models.blocks.torch.load", LACKING),
        ("stvsr.models.blocks.nn.Sequential", LACKING),
        ("stvsr.models.blocks.residual_blocks", FOREIGN),
        ("stvsr.models.nothing.There", LACKING),
        ("stvsr.training.module.SpaceTimeModule", FOREIGN),
        ("${oc.env:HOME}", FOREIGN),
        (7, FOREIGN),
        (None, FOREIGN),
    ],
)
@pytest.mark.parametrize("place", ["top", "nested"])
def test_only_networks_of_this_package_are_built(
    saved: dict[str, Any], tmp_path: Path, target: object, says: str, place: str
) -> None:
    (saved[MODEL_KEY] if place == "top" else saved[MODEL_KEY]["propagation"])["_target_"] = target
    with pytest.raises(InvalidInput, match=says):
        load_network(write(saved, tmp_path / "a.ckpt"))


@pytest.mark.parametrize("entry", [{"_partial_": True}, {"_args_": ["x"]}, {"channels": torch.ones(1)}])
def test_a_model_config_holds_plain_values_only(saved: dict[str, Any], tmp_path: Path, entry: dict[str, Any]) -> None:
    saved[MODEL_KEY]["interpolation"] |= entry
    with pytest.raises(InvalidInput, match="model config"):
        load_network(write(saved, tmp_path / "a.ckpt"))


def test_references_in_a_model_config_are_not_resolved(saved: dict[str, Any], tmp_path: Path) -> None:
    """Hydra would resolve them after any check of names, and call what they name."""
    made = tmp_path / "made"
    saved[MODEL_KEY]["interpolation"] = f"${{oc.create:{{_target_:os.mkdir,path:'{made}'}}}}"
    with pytest.raises(InvalidInput):
        load_network(write(saved, tmp_path / "a.ckpt"))
    assert not made.exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state_dict": 5}, NEITHER),
        ({MODEL_KEY: []}, NEITHER),
        ({MODEL_KEY: {"_target_": []}}, "names []; only classes"),
    ],
)
def test_a_checkpoint_of_the_wrong_form_is_refused(
    saved: dict[str, Any], tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    assert_refused(write(saved | change, tmp_path / "a.ckpt"), why)


def test_part_of_a_network_is_refused(saved: dict[str, Any], tmp_path: Path) -> None:
    saved[MODEL_KEY] = saved[MODEL_KEY]["propagation"]
    with pytest.raises(InvalidInput, match="a part of a network"):
        load_network(write(saved, tmp_path / "a.ckpt"))


@pytest.mark.parametrize("groups", [0, -1])
def test_numbers_that_no_network_has_are_refused(saved: dict[str, Any], tmp_path: Path, groups: int) -> None:
    saved[MODEL_KEY]["interpolation"] = {
        "_target_": "stvsr.models.interpolation.DeformableInterpolation",
        "channels": 8,
        "deformable_groups": groups,
    }
    with pytest.raises(InvalidInput, match=r"a\.ckpt: the network it names cannot be built \("):
        load_network(write(saved, tmp_path / "a.ckpt"))


@pytest.mark.parametrize("place", ["top", "nested"])
def test_arguments_that_a_network_does_not_take_are_named_with_the_file_once(
    saved: dict[str, Any], tmp_path: Path, place: str
) -> None:
    (saved[MODEL_KEY] if place == "top" else saved[MODEL_KEY]["propagation"])["magic"] = 1
    with pytest.raises(InvalidInput, match=r"cannot be built \(.*'magic'") as refused:
        load_network(write(saved, tmp_path / "a.ckpt"))
    assert str(refused.value).count("a.ckpt") == 1


def test_weights_of_another_variant_than_named_are_refused(
    saved: dict[str, Any], small_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    saved["state_dict"] = {f"network.{n}": t for n, t in small_network("b").state_dict().items()}
    with pytest.raises(InvalidInput, match="do not fit"):
        load_network(write(saved, tmp_path / "a.ckpt"))


def test_resuming_another_variant_names_the_setting_that_differs(saved: dict[str, Any], tmp_path: Path) -> None:
    path = write(saved | {"optimizer_states": []}, tmp_path / "a.ckpt")
    read_run(path, saved[MODEL_KEY])
    other = saved[MODEL_KEY] | {"propagation": {"_target_": "stvsr.models.propagation.NoPropagation"}}
    with pytest.raises(InvalidInput, match=r"another network: its propagation\.\w+"):
        read_run(path, other)


def test_resuming_from_weights_alone_is_refused(saved: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="weights but no training state"):
        read_run(write(saved, tmp_path / "a.ckpt"), saved[MODEL_KEY])


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def malicious_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": Malicious(), MODEL_KEY: {}}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint\n",
        b"\x80\x02]a.",
        pickle.dumps({"state_dict": {}}),
        pickle.dumps(Malicious()),
        malicious_file(),
    ],
    ids=["empty", "text", "garbage", "pickle", "malicious-pickle", "malicious-zip"],
)
def test_what_is_no_checkpoint_is_refused_and_not_executed(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.ckpt"
    path.write_bytes(content)
    assert_refused(path, NO_CHECKPOINT)
    assert "executed" not in capsys.readouterr().out


def test_truncated_checkpoint_is_refused(saved: dict[str, Any], tmp_path: Path) -> None:
    path = write(saved, tmp_path / "cut.ckpt")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InvalidInput, match="damaged"):
        load_network(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [({"weights": torch.ones(1)}, NEITHER), ([1, 2], "holds a list; expected a checkpoint of stvsr"), ({}, NEITHER)],
    ids=["other-dict", "list", "empty-dict"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object, why: str) -> None:
    assert_refused(write(content, tmp_path / "a.pt"), why)


def test_numbers_beyond_half_precision_are_exported_whole(tmp_path: Path) -> None:
    """Half precision ends at 65504; batch counts and variances do not."""
    system = TwoStage(interpolator=DAIN(channels=2), upscaler=Bicubic())
    state = {
        f"network.{name}": torch.full_like(tensor, 100_001)
        if name.endswith(("num_batches_tracked", "running_var"))
        else tensor
        for name, tensor in system.state_dict().items()
    }
    config = {
        "_target_": target_of(TwoStage),
        "interpolator": {"_target_": target_of(DAIN), "channels": 2},
        "upscaler": {"_target_": target_of(Bicubic)},
    }
    export(write({MODEL_KEY: config, "state_dict": state}, tmp_path / "a.ckpt"), tmp_path / "a.safetensors")
    read = load_network(tmp_path / "a.safetensors").state_dict()
    for ending in ("num_batches_tracked", "running_var"):
        assert {number for name in read if name.endswith(ending) for number in read[name].flatten().tolist()} == {
            100_001
        }


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    saved: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(saved, tmp_path / "a.ckpt")
    # Stubbed, because root may read every file.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidInput, match=r"a\.ckpt: not readable by this user"):
        load_network(path)


def test_what_else_a_training_keeps_is_no_part_of_the_network(saved: dict[str, Any], tmp_path: Path) -> None:
    saved["state_dict"]["objective.weight"] = torch.ones(1)
    load_network(write(saved, tmp_path / "a.ckpt"))


def test_a_run_goes_on_with_or_without_checkpointing(saved: dict[str, Any], tmp_path: Path) -> None:
    path = write(saved | {"optimizer_states": []}, tmp_path / "a.ckpt")
    other = saved[MODEL_KEY] | {"checkpointing": not saved[MODEL_KEY]["checkpointing"]}
    assert read_run(path, other)[MODEL_KEY] == saved[MODEL_KEY]


def test_a_safetensors_file_whose_config_is_broken_is_called_damaged(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={MODEL_KEY: "{"})
    with pytest.raises(InvalidInput, match=r"a\.safetensors: not a .safetensors file, or a damaged one"):
        load_network(tmp_path / "a.safetensors")


def test_a_variant_that_is_no_name_is_none(saved: dict[str, Any], tmp_path: Path) -> None:
    assert variant_of(write(saved | {VARIANT_KEY: {"letter": "e"}}, tmp_path / "a.ckpt")) is None


def test_a_class_that_this_version_lacks_is_not_called_foreign(
    saved: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved[MODEL_KEY]["propagation"]["_target_"] = "stvsr.models.propagation.ConvGRU"
    with pytest.raises(InvalidInput, match=r"names stvsr\.models\.propagation\.ConvGRU, which this stvsr lacks"):
        load_network(write(saved, tmp_path / "a.ckpt"))
    assert capfd.readouterr() == ("", ""), "nothing beside the one line"
