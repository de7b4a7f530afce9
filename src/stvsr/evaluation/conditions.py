"""What the clip set of a run consists of: where that differs, scores are not comparable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stvsr.config import flattened
from stvsr.evaluation.rows import Row

NOT_COMPARED = frozenset({"_target_", "_partial_", "name", "frames"})
"""Data settings that say how clips are named, read and checked, not which clips they are."""


def conditions(settings: Mapping[str, Any], row: Row) -> dict[str, str]:
    """The data settings, motion thresholds and number of clips of a clip set, as text by name."""
    data = _data_of(settings.get("data", {}), row.clip_set)
    described = {
        name: str(value)
        for name, value in flattened(data).items()
        # null means the same as no setting.
        if value is not None and NOT_COMPARED.isdisjoint(name.split("."))
    }
    if (beginning := settings.get("beginnings", {}).get(row.clip_set)) is not None:
        described["pixels"] = beginning
    described |= {f"motion.{name}": str(value) for name, value in settings.get("thresholds", {}).items()}
    return described | {"clips": str(row.clips + row.clips_left_out)}


def _data_of(data: Mapping[str, Any], clip_set: str) -> Mapping[str, Any]:
    """The data settings of one clip set; all of them where none are marked as its own."""
    for part in data.get("sets", []):
        # A set without a name is named after its folder.
        if clip_set == (part.get("name") or Path(part.get("root") or "/").resolve().name):
            return dict(part)
    return data
