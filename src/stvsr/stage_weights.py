"""Loads the weights of two-stage systems, each stage's from a separate file."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from stvsr.checkpoint import fill, own_network, read_file
from stvsr.errors import InvalidInput
from stvsr.models.network import Stage
from stvsr.models.stages import kind_of, target_of
from stvsr.models.two_stage import TwoStage
from stvsr.models.weight_files import find_tensors, load_weights


def load_stages(system: TwoStage, files: Mapping[str, str | None], *, required: bool) -> None:
    """Loads the weights that a config names into the stages of a two-stage system.

    Args:
        system: what to fill.
        files: paths, by the stages' names in configs; None for no file.
        required: whether each stage that has parameters must have a file.

    Raises:
        InvalidInput: as for `load_stage`, or a required file is not named.
    """
    for stage in system.stages.values():
        if not stage.learns:
            continue
        path = files.get(stage.option)
        if path is not None:
            load_stage(stage, path)
        elif required:
            raise InvalidInput(f"{stage.title} has no weights: give weights.{stage.option}=FILE, {_expected(stage)}")


def load_stage(stage: Stage, path: str | Path) -> None:
    """Loads weights into one stage of a two-stage system.

    Args:
        stage: what to fill.
        path: one of its published files, or one of our checkpoints of a system with such a stage.

    Raises:
        InvalidInput: the file is missing, holds no such stage, or one of another size.
    """
    if not Path(path).exists():
        raise InvalidInput(f"{path}: no such file; expected {_expected(stage)}")
    content = read_file(path)
    tensors = find_tensors(content)
    if (kind := kind_of(type(stage), tensors)) is not None:
        load_weights(stage, tensors, kind, origin=str(path))
        return
    config, weights = own_network(content) or ({}, {})
    parts = {place: part for place, part in config.items() if isinstance(part, dict)}
    place = next((place for place, part in parts.items() if part.get("_target_") == target_of(type(stage))), None)
    if place is None:
        raise InvalidInput(f"{path}: holds no {stage.title}; expected {_expected(stage)} that has one")
    prefix = f"{place}."
    stage_weights = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    settings = {name: value for name, value in parts[place].items() if name != "_target_"}
    try:
        fill(stage, stage_weights, path)
    except InvalidInput:
        if not settings:
            raise
        overrides = (
            f"++frame_{place}.{name}={json.dumps(value, separators=(',', ':'))}" for name, value in settings.items()
        )
        raise InvalidInput(
            f"{path}: its {stage.title} was trained with other settings; add them: {shlex.join(overrides)} (if they "
            "are already given, the file is damaged)"
        ) from None


def _expected(stage: Stage) -> str:
    published = " or ".join(f"{kind.name} of {kind.project}" for kind in stage.weight_files)
    return f"{published}, or a checkpoint of stvsr.train" if published else "a checkpoint of stvsr.train"
