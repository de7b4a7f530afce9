"""What a clip set is that a run was scored on: where that differs, scores do not compare."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stvsr.config import flattened
from stvsr.evaluation.rows import Row

NOT_COMPARED = frozenset({"_target_", "_partial_", "name", "frames"})
"""Settings of data that tell how it is called, read and checked, not what it is."""


def conditions(settings: Mapping[str, Any], row: Row) -> dict[str, str]:
    """What a clip set is and where its motion splits end, each setting as text, and how many clips it has."""
    data = _data_of(settings.get("data", {}), row.clip_set)
    told = {
        name: str(value)
        for name, value in flattened(data).items()
        # null is like a setting that is not there.
        if value is not None and NOT_COMPARED.isdisjoint(name.split("."))
    }
    if (beginning := settings.get("beginnings", {}).get(row.clip_set)) is not None:
        told["pixels"] = beginning
    told |= {f"motion.{name}": str(value) for name, value in settings.get("thresholds", {}).items()}
    return told | {"clips": str(row.clips + row.clips_left_out)}


def _data_of(data: Mapping[str, Any], clip_set: str) -> Mapping[str, Any]:
    """Of the settings of data those of one clip set; all where they do not tell which those are."""
    for part in data.get("sets", []):
        # A set without a name is called as its folder.
        if clip_set == (part.get("name") or Path(part.get("root") or "/").resolve().name):
            return dict(part)
    return data
