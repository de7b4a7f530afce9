"""One file, one network: weights and the model config that rebuilds them, together.

A checkpoint of ours is what Lightning writes, with the resolved model config under `MODEL_KEY`; it holds tensors
and plain values only, so it is read with `weights_only=True`. A checkpoint names classes to build; only networks of
this package are built. To hand a network on there is a smaller file, `.safetensors`: its weights in half precision and
the config. Published files are read as well: the paper's authors' weights, and those of the networks of two-stage
systems, each recognised by its tensor names.
"""

import json
import os
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stvsr.config import flattened
from stvsr.errors import InvalidInput, one_line
from stvsr.files import beside_then_rename, flush_to_disk
from stvsr.models.grown_start import PART, TRAINING_ONLY, can_grow, handing_on
from stvsr.models.network import Network
from stvsr.models.released import RELEASED, from_released
from stvsr.models.stages import from_published
from stvsr.models.weight_files import find_tensors

MODEL_KEY = "stvsr_model"
"""Where the resolved model config stands in a checkpoint."""

VARIANT_KEY = "stvsr_variant"
"""Where the name of the variant stands in a checkpoint: an ablation's letter, or another."""

OPTIMIZER_KEY = "stvsr_optimizer"
"""Where the name of the optimizer's class stands in a checkpoint."""

SETTINGS_KEY = "stvsr_settings"
"""Where the settings that decide what was learned stand in a checkpoint."""

NETWORK_PREFIX = "network."
"""What Lightning puts before the names of the network's tensors."""

NETWORK_PACKAGE = "stvsr.models."

COMPACT = ".safetensors"
"""The ending of a file of half-precision weights."""

STARTER = "starter"
"""What the weights that come with the package are called, wherever a file of weights is asked for."""


def load_network(path: str | Path) -> Network:
    """A trained network, ready to use.

    Args:
        path: a checkpoint of ours or what `export` made of it, the authors' released weights, or those published of a
            network of two-stage systems, whose other stage then is the one without learning; or `"starter"`.

    Returns:
        The network on the CPU, in `eval()` mode.

    Raises:
        InvalidInput: the file is missing, is no such checkpoint, names anything but a network of this package,
            or its weights do not fit the network it names.
    """
    return _rebuilt(*_config_and_weights(read_file(path), path), path).eval()


def export(path: str | Path, output: Path) -> None:
    """Writes the network of a checkpoint as a compact file: weights in half precision and what rebuilds the network.

    Args:
        path: as of `load_network`.
        output: the file; its name ends in `.safetensors`.

    Raises:
        InvalidInput: as `load_network`, or another ending.
    """
    if output.suffix != COMPACT:
        raise InvalidInput(f"{output}: expected a name that ends in {COMPACT}: choose another output")
    content = read_file(path)
    config, weights = _config_and_weights(content, path)
    _rebuilt(config, weights, path)  # refuses what would not load
    metadata = {MODEL_KEY: json.dumps(config), VARIANT_KEY: str(content.get(VARIANT_KEY) or "")}
    halves = {name: _halved(part).contiguous() for name, part in weights.items()}
    with beside_then_rename(output) as beside:
        # Not its save_file, whose files only their owner may read.
        beside.write_bytes(save(halves, metadata=metadata))
        flush_to_disk(beside)


def _halved(part: Tensor) -> Tensor:
    """In half precision, if that goes as far: a normalisation's variance or its count of batches may be larger."""
    half = part.half()
    return half if part.is_floating_point() and half.isfinite().all() else part


def fill(network: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Gives a network its weights.

    Args:
        network: what to fill.
        weights: all of its tensors.
        path: where they are from, for messages.

    Raises:
        InvalidInput: they are not the network's.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InvalidInput(
            f"{path}: the weights do not fit the network it names ({one_line(error)[:200]}); "
            "the file is damaged or was edited: use another"
        ) from None


def _config_and_weights(content: dict[str, Any], path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = find_tensors(content)
    if RELEASED.fits(tensors):
        return from_released(tensors, origin=str(path))
    found = from_published(tensors, origin=str(path)) or own_network(content)
    if found is None:
        raise InvalidInput(
            f"{path}: neither a checkpoint of stvsr (no entry {MODEL_KEY!r}) nor the authors' released weights; "
            f"give a file that stvsr.train wrote, or a {COMPACT} file of stvsr.export"
        )
    return found


def own_network(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The model config and the network's weights in what a checkpoint of ours holds; None for any other file."""
    config, state = content.get(MODEL_KEY), content.get("state_dict")
    if not isinstance(config, dict) or not isinstance(state, dict):
        return None
    weights = {
        name.removeprefix(NETWORK_PREFIX): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(NETWORK_PREFIX)
    }
    return config, weights


def _rebuilt(config: dict[str, Any], weights: dict[str, Tensor], path: str | Path) -> Network:
    """The network that a model config names, with its weights."""
    network = _build(config, str(path))
    if not isinstance(network, Network):
        raise InvalidInput(f"{path}: names {config.get('_target_')!r}, a part of a network; expected a whole one")
    fill(network, weights, path)
    return network


def variant_of(path: str | Path) -> str | None:
    """What a checkpoint calls its network, such as an ablation's letter; None for weights that say nothing of it.

    Raises:
        InvalidInput: the file is missing or no checkpoint.
    """
    variant = read_file(path).get(VARIANT_KEY)
    return variant if isinstance(variant, str) else None


def read_run(path: str | Path, config: dict[str, Any]) -> dict[str, Any]:
    """What a file holds, from which a run of the network of a resolved config can be continued.

    Raises:
        InvalidInput: weights without the state of a run, or another network; the message names the first setting that
            differs.
    """
    content = read_file(path)
    saved, _ = _config_and_weights(content, path)
    if "optimizer_states" not in content:
        raise InvalidInput(f"{path}: holds weights but not the state of a run; resume from a last.ckpt of stvsr.train")
    _check_same_network(path, saved, config)
    return content


def weights_for(path: str | Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in a file, for a network; those of (b) are completed to those of (e) (`stvsr.models.grown_start`).

    Args:
        path: as of `load_network`.
        config: the resolved config of the network.

    Returns:
        By the names of the network's tensors.

    Raises:
        InvalidInput: as `load_network`, or they are of another network; the message names the first setting that
            differs.
    """
    saved, weights = _config_and_weights(read_file(path), path)
    if can_grow(saved, config):
        return weights | handing_on(_build(config[PART], str(path)))
    _check_same_network(path, saved, config)
    return weights


def _check_same_network(path: str | Path, saved: dict[str, Any], config: dict[str, Any]) -> None:
    ours, theirs = flattened(config), flattened(saved)
    for key in sorted((ours.keys() | theirs.keys()) - TRAINING_ONLY):
        if ours.get(key) != theirs.get(key):
            raise InvalidInput(
                f"{path}: a checkpoint of another network: its {key} is {theirs.get(key)!r}, the configuration "
                f"says {ours.get(key)!r}; choose the ablation it was trained with, or another file"
            )


def weight_file(named: str | Path) -> Path:
    """The file that a path, or the name `starter`, means."""
    return Path(__file__).parent / "weights" / f"{STARTER}{COMPACT}" if str(named) == STARTER else Path(named)


def read_file(path: str | Path) -> dict[str, Any]:
    """What a file of weights holds; nothing in it is executed.

    Raises:
        InvalidInput: the file is missing or is no such file.
    """
    path = weight_file(path)
    if path.is_dir():
        raise InvalidInput(f"checkpoint {path}: is a folder; expected a file, as a run's checkpoints/last.ckpt in it")
    if not path.is_file():
        raise InvalidInput(f"checkpoint {path}: no such file; check the name")
    if not os.access(path, os.R_OK):
        raise InvalidInput(f"checkpoint {path}: not readable for this user; make it readable")
    if path.suffix == COMPACT:
        return _read_compact(path)
    try:
        # Super-SloMo's file tells when it was written.
        with torch.serialization.safe_globals([datetime]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # Whatever the bytes make the unpickler stumble over.
        raise InvalidInput(
            f"{path}: not a checkpoint, or a damaged one; give a file that stvsr.train wrote, a {COMPACT} file of "
            "stvsr.export, or the authors' released weights; remove it if a run left it that is to begin anew"
        ) from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path}: holds a {type(content).__name__}; expected a checkpoint of stvsr")
    return content


def _read_compact(path: Path) -> dict[str, Any]:
    """A file that `export` wrote, in the form of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {f"{NETWORK_PREFIX}{name}": file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        config = json.loads(metadata.get(MODEL_KEY, "null"))
    except (SafetensorError, OSError, ValueError):
        raise InvalidInput(f"{path}: not a {COMPACT} file, or a damaged one; give one of stvsr.export") from None
    return {MODEL_KEY: config, VARIANT_KEY: metadata.get(VARIANT_KEY) or None, "state_dict": state}


def _build(config: object, origin: str) -> Any:
    """What a model config names, from plain values alone.

    Not by Hydra, which would first resolve references such as `${...}` and so could be made to call anything.
    """
    if isinstance(config, list):
        return [_build(value, origin) for value in config]
    if not isinstance(config, dict):
        if not isinstance(config, int | float | str | bool | None):
            raise InvalidInput(f"{origin}: its model config holds a {type(config).__name__}; expected plain values")
        return config
    permitted = permitted_class(config.get("_target_"), origin)
    arguments = {key: value for key, value in config.items() if key != "_target_"}
    for key in arguments:
        if not isinstance(key, str) or key.startswith("_"):
            raise InvalidInput(f"{origin}: its model config has the entry {key!r}, which no network takes")
    parts = {key: _build(value, origin) for key, value in arguments.items()}
    try:
        return permitted(**parts)
    except Exception as error:
        # Whatever comes of numbers that no network has.
        reason = one_line(error)[:200]
        raise InvalidInput(f"{origin}: the network it names cannot be built ({reason}); use another file") from None


def permitted_class(target: object, origin: str) -> type[nn.Module]:
    """The class that a file may name; one of this package, or `InvalidInput` is raised."""
    # The name alone is not enough: "stvsr.models.blocks.torch.load" begins as it should.
    if isinstance(target, str) and target.startswith(NETWORK_PACKAGE):
        module, _, name = target.rpartition(".")
        try:
            named = getattr(import_module(module), name)
        except Exception:
            raise InvalidInput(f"{origin}: names {target}, which this stvsr lacks; use the one that has it") from None
        if isinstance(named, type) and issubclass(named, nn.Module) and named.__module__.startswith(NETWORK_PACKAGE):
            return named
    raise InvalidInput(
        f"{origin}: names {target!r}; only classes of {NETWORK_PACKAGE.rstrip('.')} are built from files: train one of "
        "those, or score this one by method=…, a function that returns it (CONTRIBUTING.md)"
    )
