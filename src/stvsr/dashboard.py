"""Makes the project's dashboard on Weights & Biases: `python -m stvsr.dashboard entity=ME online=true`.

A saved workspace view: runs grouped by ablation, validation PSNR and SSIM per motion split over steps, the scores of
evaluations as bars, and indicators of a run's health. Without `online=true` it writes the view's specification to
`dashboard.json` and needs no account. The names of metrics are those of `tracking.py` and `training/monitors.py`.
"""

import json
from pathlib import Path
from typing import Any

import wandb_workspaces.workspaces as ws
from omegaconf import DictConfig
from wandb_workspaces.reports.v2.interface import BarPlot, LinePlot, MediaBrowser

from stvsr.cli import entry_point
from stvsr.config import check_flag, check_list
from stvsr.data.clip import SPLITS
from stvsr.errors import InvalidInput, UserError
from stvsr.files import write_text
from stvsr.tracking import (
    CLIPS_PER_SECOND,
    LEARNING_RATE,
    LOSS,
    OFFSET_MAGNITUDE,
    PICTURE,
    SHORT,
    STEP,
    VALIDATION,
    score_name,
)

HEALTH = (LOSS, LEARNING_RATE, OFFSET_MAGNITUDE, CLIPS_PER_SECOND)
"""Metrics that every training run logs."""

GROUP = "Group"
"""W&B's name for a run's group, which the logger's config sets to the ablation."""


def workspace(*, entity: str, project: str, sets: list[str]) -> ws.Workspace:
    """The dashboard.

    Args:
        entity: the project's owner.
        project: its name.
        sets: clip sets whose scores are shown.
    """
    curves: list[Any] = [LinePlot(title=_title(name), x=STEP, y=[name]) for name in VALIDATION]
    health: list[Any] = [LinePlot(title=name, x=STEP, y=[name]) for name in HEALTH]
    scores: list[Any] = [
        BarPlot(title=f"{clip_set}: {_title(name)}", metrics=[name])
        for clip_set in sets
        for name in (score_name(clip_set, metric, split) for metric in SHORT.values() for split in SPLITS)
    ]
    pictures = MediaBrowser(title="validation clips", media_keys=[f"{PICTURE}/{number}" for number in range(3)])
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Ablations",
        sections=[
            ws.Section(name="Validation per motion split", panels=curves, is_open=True),
            ws.Section(name="Scores", panels=scores, is_open=True),
            ws.Section(name="Pictures", panels=[pictures], is_open=True),
            ws.Section(name="Training", panels=health, is_open=True),
        ],
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric(GROUP)]),
    )


def _title(name: str) -> str:
    """A panel's title from a logged name: its metric and split."""
    metric, split = name.split("/")[-2:]
    return f"{metric.upper()}, {split}"


def dashboard(config: DictConfig) -> str:
    """Saves the dashboard on W&B, or writes its specification; returns its URL or path.

    Raises:
        InvalidInput: `sets` is no list, `online` no boolean, or `entity` or `project` missing.
        UserError: W&B rejects it.
    """
    check_list(config, "sets")
    check_flag(config, "online")
    for name in ("entity", "project"):
        if config[name] in (None, ""):
            raise InvalidInput(f"{name}={config[name]}; expected its name on W&B")
    view = workspace(entity=str(config.entity), project=str(config.project), sets=list(map(str, config.sets)))
    if config.online:
        try:
            view.save()  # type: ignore[no-untyped-call]
        except Exception as error:
            # W&B raises many kinds of errors if account, network or project are missing.
            raise UserError(
                f"W&B rejected the dashboard of {config.entity}/{config.project} ({error}); run `wandb login` and "
                "check entity and project, or omit online=true to write the specification"
            ) from None
        return str(view.url)
    path = Path(config.output_dir) / "dashboard.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    specification = view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    write_text(path, json.dumps(specification, indent=2) + "\n")
    return str(path)


@entry_point("dashboard")
def main(config: DictConfig) -> None:
    """Makes the dashboard and prints where it is."""
    print(f"dashboard: {dashboard(config)}")


if __name__ == "__main__":
    main()
