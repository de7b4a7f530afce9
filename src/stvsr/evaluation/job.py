"""Everything that scores one method on one data set, built from a config; each process builds its own."""

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from stvsr.checkpoint import weight_file
from stvsr.config import check_list, entries, resolved, targets_in, with_absolute_roots, without_roots
from stvsr.data.clip_sets import ClipSet
from stvsr.data.motion_measure import MotionThresholds
from stvsr.errors import InvalidInput
from stvsr.evaluation.method import chosen_network, fingerprint
from stvsr.evaluation.motion_cache import read_motion
from stvsr.evaluation.output_folder import SAVED, OutputFolder
from stvsr.evaluation.perceptual import EXTRAS
from stvsr.evaluation.predictions import SavedFrames
from stvsr.evaluation.progress import BatchRecord
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.scoring import Scorer, fixed_batches
from stvsr.evaluation.shown import PICTURES, ShownClips
from stvsr.evaluation.windows import Windows, plan
from stvsr.files import checksum_of
from stvsr.ops.deformable import use_backend
from stvsr.unfinished import code_checksum

IDENTITY = ("model", "method", "predictions", "protocol", "batch_size", "extras", "save_frames", "pictures")
"""Settings that decide the output of an evaluation, besides the checkpoint and the clips."""

CODE = code_checksum("data", "evaluation", "graphs", "models", "ops")
"""Checksum of the code that decides it too; taken at import, as files may be edited while a study runs."""


class Job:
    """What a config of `conf/evaluate.yaml` describes.

    Attributes:
        tasks: the plan: every window of every clip.
        network: makes the frames; None where saved ones are scored.
        protocol: how to score.
        thresholds: the limits of the motion splits.
        scorer: scores batches by number.
        output: the folder to write to.

    Args:
        config: the composed config.
        device: where to run.

    Raises:
        UserError: something the config names is missing or invalid.
    """

    def __init__(self, config: DictConfig, device: torch.device) -> None:
        self.config = config
        use_backend(config.deformable)
        if config.motion is None:
            raise InvalidInput("motion=null; expected thresholds: omit it for the default ones")
        if config.data.test_source is None:
            raise InvalidInput("data.test_source=null: no clips to score; omit it, or choose other data")
        self.protocol: Protocol = instantiate(config.protocol)
        self.thresholds: MotionThresholds = instantiate(config.motion)
        clips: ClipSet = instantiate(config.data.test_source)
        self.tasks = plan(clips, self.protocol)
        self.network = chosen_network(config)
        if config.motion_cache is None:
            raise InvalidInput("motion_cache=null; expected a file: omit it for one beside the results")
        folder = Path(config.output_dir)
        check_list(config, "extras")
        needed = ((task.clip, task.folder, task.numbers) for task in self.tasks)
        saved = None if config.predictions is None else SavedFrames(root=config.predictions, needed=needed)
        for name in config.extras:
            if name not in EXTRAS:
                raise InvalidInput(f"extras=[{name}]: no such metric; expected some of {', '.join(sorted(EXTRAS))}")
        self.scorer = Scorer(
            windows=Windows(
                clips=clips,
                tasks=self.tasks,
                predictions=saved,
                motion=read_motion(Path(config.motion_cache)),
                reach=0 if self.network is None else self.network.reach,
            ),
            batches=fixed_batches(len(self.tasks), config.batch_size),
            network=self.network,
            device=device,
            extras={name: EXTRAS[name](device) for name in config.extras},
            shown=ShownClips(folder=folder / PICTURES, clips=config.pictures, tasks=self.tasks),
            save_to=folder / SAVED if config.save_frames else None,
            workers=config.workers,
        )
        data = resolved(config)["data"]["test_source"]
        self.output = OutputFolder(
            folder,
            saves=config.save_frames,
            reads=[Path(root) for root in roots_in([data, {"root": config.predictions}])],
        )

    def settings(self) -> dict[str, Any]:
        """What was scored and how, for readers of the results: the data, LR frames, thresholds, batches, pictures."""
        chosen = resolved(self.config)
        data = with_absolute_roots(chosen["data"]["test_source"])
        motions = {task.index: task.clip.motion for task in self.tasks}.values()
        measured = sum(motion is None for motion in motions)
        return {
            "stvsr": version("stvsr"),
            "torch": version("torch"),
            "data": data,
            "lr_frames": _lr_frames(data),
            "motion": f"measured for {measured} clips, given by the data for {len(motions) - measured}",
            "thresholds": asdict(self.thresholds),
            "pictures": self.scorer.shown.folders(),
            **{
                key: chosen.get(key)
                for key in ("model", "weights", "method", "checkpoint", "predictions", "batch_size", "processes")
            },
        }

    def is_current(self, record: BatchRecord) -> bool:
        """Whether the files that a batch was scored on are still the same."""
        windows = self.scorer.windows
        return all(window.state == windows.state(self.tasks[window.position]) for window in record.windows)

    def notes(self) -> list[str]:
        """What a reader must know about the networks of a two-stage system."""
        stages = () if self.network is None else self.network.stages.values()
        return [f"{stage.title}: {note}" for stage in stages for note in stage.notes]

    def progress_key(self) -> dict[str, Any]:
        """Everything that decides the scores, as plain values: unfinished progress with the same key is continued."""
        chosen = resolved(self.config)
        key: dict[str, Any] = {name: chosen.get(name) for name in IDENTITY}
        # Of the whole file: its model config counts as well as its weights.
        if self.config.checkpoint is not None:
            key["checkpoint"] = checksum_of([weight_file(self.config.checkpoint)])
        modules = [str((chosen.get("method") or {}).get("_target_")).rpartition(".")[0]]
        if self.network is not None:
            key["network"] = fingerprint(self.network)
            modules += [type(part).__module__ for part in self.network.modules()]
        modules += [EXTRAS[name].__module__ for name in self.config.extras]
        key |= {"code": CODE, "own_code": _code_of_modules({*modules}), "torch": version("torch")}
        if self.config.predictions is not None:
            key["predictions"] = str(Path(self.config.predictions).resolve())
        key["data"] = with_absolute_roots(chosen["data"]["test_source"])
        clips = dict.fromkeys(task.clip for task in self.tasks)
        clip_list = "\n".join(f"{clip.clip_set} {clip.name} {clip.frames}" for clip in clips)
        key["clips"] = f"{len(clips)}, {hashlib.sha256(clip_list.encode()).hexdigest()}"
        return key

    def results_key(self, progress_key: dict[str, Any], name: str, states: Iterable[str]) -> dict[str, Any]:
        """Everything that decides the results, kept in them as `made_with`: if it is the same, nothing is scored again.

        Args:
            progress_key: from when the evaluation began.
            name: of the method.
            states: of each window's files, in order.
        """
        chosen = resolved(self.config)
        added: dict[str, Any] = {key: chosen[key] for key in ("device", "deformable")}
        added |= {"name": name, "thresholds": asdict(self.thresholds)}
        added |= {"files": hashlib.sha256("\n".join(states).encode()).hexdigest()}
        key: dict[str, Any] = json.loads(json.dumps(progress_key | added))
        return key

    def is_all_ours(self) -> bool:
        """Whether no custom class takes part, whose code may depend on files unknown here."""
        chosen = resolved(self.config)
        parts = [chosen.get(part) for part in ("model", "method", "protocol")] + [chosen["data"]["test_source"]]
        return all(target.startswith("stvsr.") for target in targets_in(parts))


def other_settings(made_with: dict[str, Any], config: DictConfig) -> list[str]:
    """Names of settings in which a config differs from finished results, wherever clips and weights lie.

    Args:
        made_with: that of the results.
        config: of the evaluation.
    """
    chosen = resolved(config)
    requested = {name: chosen.get(name) for name in ("protocol", "extras")}
    requested["checkpoint"] = None if config.checkpoint is None else checksum_of([weight_file(config.checkpoint)])
    requested["thresholds"] = None if config.motion is None else asdict(instantiate(config.motion))
    requested["data"] = without_roots(chosen["data"]["test_source"])
    stored = made_with | {"data": without_roots(made_with.get("data"))}
    return [name for name, value in requested.items() if stored.get(name) != value]


def _code_of_modules(names: set[str]) -> str:
    """Checksum of the files of those modules that are custom ones."""
    custom = {name for name in names if name.partition(".")[0] not in ("stvsr", "torch")}
    files = {file for name in custom if (file := getattr(sys.modules.get(name), "__file__", None))}
    return checksum_of(map(Path, files))


def roots_in(settings: Any) -> list[str]:
    """The folders that data settings name."""
    return [str(value) for name, value in entries(settings) if name.endswith("root") and value is not None]


def _lr_frames(data: dict[str, Any]) -> str:
    """Where the LR frames of the clip set, or of each of several, come from."""
    parts = data.get("sets", [data])
    if not all(str(part.get("_target_")).startswith("stvsr.") for part in parts):
        return "as the data has them, or MATLAB bicubic"
    roots = [part.get("lr_root") for part in parts]
    given = ", ".join(dict.fromkeys(filter(None, roots)))
    if not given:
        return "MATLAB bicubic of the HR frames"
    return f"given in {given}" + ("" if all(roots) else ", of the other sets MATLAB bicubic")
