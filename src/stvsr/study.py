"""The paper's Table 2 on a small scale: `python -m stvsr.study root=DIR val_root=OTHER_DIR`, or `make study`.

Trains the ablations (a) to (e) from several seeds for the same number of steps, those of a seed on the same clips in
the same order, scores each on whole videos and on generated clips, and writes `study.md` with tables, curves and
pictures. Finished parts are not repeated: a stopped study resumes when the same command is given again.
"""

import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from stvsr.checkpoint import load_network
from stvsr.cli import entry_point
from stvsr.config import check_flag, check_list, override
from stvsr.data.datasets import ValidationClips
from stvsr.errors import Interrupted, InvalidInput, TrainingDiverged, one_line
from stvsr.evaluate import evaluate
from stvsr.evaluation.ablations import TrainedRun, curve_figure, ordering_table, run_name, score_table, training_table
from stvsr.evaluation.figures import save_figure, show_clip
from stvsr.evaluation.job import other_settings
from stvsr.evaluation.results import Results, read_results
from stvsr.files import write_text
from stvsr.train import check_start, train
from stvsr.training.continuation import check_videos, is_finished, read_earlier, settings_of
from stvsr.training.logs import read_logs
from stvsr.training.summary import summary

CONTINUE = "give the same command again to continue the study"

PICTURES = "study"
"""The folder of pictures, beside the report."""

SHOWN_CLIPS = {"medium": 1, "fast": 2}
"""Indices of the generated clips in the pictures, by motion."""

Run = tuple[int, str]
"""The seed and the ablation of a training run."""

Trainings = dict[Run, DictConfig]


def study(config: DictConfig) -> Path:
    """Trains and scores whatever is not finished yet, and compares all runs.

    Hydra must be initialised with `CONFIG_DIR`, as in an entry point: further configs are composed.

    Args:
        config: composed from `conf/study.yaml`.

    Returns:
        The path of the report.

    Raises:
        UserError: a setting or the data is not as required.
        Interrupted: stopped; called again with the same config, it resumes.
    """
    for name in ("ablations", "seeds", "training", "scoring"):
        check_list(config, name)
    for name in ("ablations", "seeds"):
        if not config[name]:
            raise InvalidInput(f"{name}=[]; expected at least one")
    for name in ("root", "val_root"):
        if config[name] is None:
            raise InvalidInput(f"{name}=null; expected a folder of videos: {name}=DIR")
    check_flag(config, "train")
    folder = Path(config.output_dir)
    # Seed by seed, so that a study stopped early has runs to compare.
    wanted = {run: training_config(config, *run) for run in product(config.seeds, config.ablations)}
    check_scoring(config)
    left_out: dict[Run, str] = {}
    if config.train:
        check_settings(wanted.values())
        left_out = train_missing(config, wanted)
        finished = {run: training for run, training in wanted.items() if run not in left_out}
        if not finished:
            remedy = """another output_dir and a lower rate, 'training=["optimizer.lr=…"]'"""
            raise TrainingDiverged(f"{folder}: no run could be finished; choose {remedy}")
    else:
        finished = {run: training for run, training in wanted.items() if is_trained(training)}
        check_settings(finished.values())
        if not finished:
            raise InvalidInput(f"train=false, but no run in {folder} is finished; omit it to train")
    baseline = results_of(config, "bicubic_blend")
    runs = scored(config, finished)
    for run in runs:
        if any(run.results.made_with.get(name) != baseline.made_with.get(name) for name in ("clips", "files")):
            raise InvalidInput(
                f"{folder}: {run_name(run.seed, run.ablation)} and {baseline.name} were scored on different clips; "
                "give the same command again, with val_root=DIR if it was omitted"
            )
    draw(config, finished, runs)
    report = folder / "study.md"
    write_text(report, as_markdown(next(iter(finished.values())), runs, baseline, left_out))
    return report


def train_missing(config: DictConfig, wanted: Trainings) -> dict[Run, str]:
    """Trains the runs that are not finished; returns those that diverged and are left out, with the reasons.

    Raises:
        InvalidInput: a run has done more steps than requested, has other videos or cannot start; nothing is trained.
    """
    missing = {run for run, training in wanted.items() if not is_trained(training)}
    if missing:
        check_videos(Path(config.root), Path(config.output_dir) / "train")
    # Once per ablation, as a user's own ablation may be unable to start from blended frames.
    unstarted = {run[1]: training for run, training in wanted.items() if not checkpoint_of(training).is_file()}
    for training in unstarted.values():
        check_start(training)
    left_out = {}
    for number, (run, training) in enumerate(wanted.items(), 1):
        if run not in missing:
            continue
        print(f"training {run_name(*run)}: {number} of {len(wanted)}", flush=True)
        try:
            train(training)
        except TrainingDiverged as error:
            # A retry would diverge again; the other runs can be compared without it.
            left_out[run] = one_line(error)
            print(f"left out: {left_out[run]}", file=sys.stderr)
    return left_out


def scored(config: DictConfig, trainings: Trainings) -> list[TrainedRun]:
    """Scores all runs; returns them with their scores and logs."""
    runs = []
    for number, ((seed, ablation), training) in enumerate(trainings.items(), 1):
        print(f"scoring {run_name(seed, ablation)}: {number} of {len(trainings)}", flush=True)
        results = results_of(config, f"{ablation}-{seed}", checkpoint=checkpoint_of(training))
        runs.append(TrainedRun(ablation, seed, results, *read_logs(training)))
    return runs


def draw(config: DictConfig, trainings: Trainings, runs: list[TrainedRun]) -> None:
    """Writes the training curves, and pictures of each ablation's output on generated clips."""
    folder = Path(config.output_dir)
    save_figure(curve_figure(runs), folder / PICTURES / "curves.png")
    # Reversed, so that each ablation is shown by the run of its first seed.
    shown = {f"({ablation})": training for (_, ablation), training in reversed(trainings.items())}
    networks = {name: load_network(checkpoint_of(training)) for name, training in sorted(shown.items())}
    clips = generated_clips(config)
    for motion, index in SHOWN_CLIPS.items():
        show_clip(networks, clips[index], folder / PICTURES / f"{motion}.png")


def generated_clips(config: DictConfig) -> ValidationClips:
    """The generated clips that runs are scored on."""
    scoring = scoring_config(config, Path(config.output_dir))
    return ValidationClips(source=instantiate(scoring.data.test_source.sets[1].source))


def check_scoring(config: DictConfig) -> None:
    """Refuses, before hours of training, unknown evaluation settings, and ones that leave too few clips to show."""
    needed = 1 + max(SHOWN_CLIPS.values())
    if (clips := len(generated_clips(config))) < needed:
        raise InvalidInput(f"scoring: {clips} generated clip(s); expected at least {needed}, for the pictures")


def data_overrides(config: DictConfig) -> list[str]:
    """Overrides that name the clip folders by absolute paths."""
    return [override(f"data.{name}", Path(config[name]).resolve()) for name in ("root", "val_root")]


def training_config(config: DictConfig, seed: int, ablation: str) -> DictConfig:
    """The composed config of one training run."""
    return compose(
        "train",
        [
            f"experiment={config.runs}",
            *config.training,
            f"ablation={ablation}",
            f"seed={seed}",
            *data_overrides(config),
            override("output_dir", Path(config.output_dir) / "train" / f"{ablation}-{seed}"),
        ],
    )


def scoring_config(config: DictConfig, folder: Path, *method: str) -> DictConfig:
    """The composed config of one evaluation, which writes to `folder`."""
    common = ["data=held", *data_overrides(config), "logger=csv"]
    cache = override("motion_cache", Path(config.output_dir) / "motion.csv")
    return compose("evaluate", [*common, cache, *config.scoring, *method, override("output_dir", folder)])


def checkpoint_of(training: DictConfig) -> Path:
    """The path of a run's last checkpoint."""
    return Path(training.callbacks.last.path)


def check_settings(trainings: Iterable[DictConfig]) -> None:
    """Refuses several devices, as each process would run the whole study, and earlier runs with other settings.

    Raises:
        InvalidInput: names what differs, or what to leave out.
    """
    for training in trainings:
        trainer, last = training.trainer, checkpoint_of(training)
        devices = len(trainer.devices) if OmegaConf.is_list(trainer.devices) else trainer.devices
        if (devices, trainer.num_nodes) != (1, 1):
            raise InvalidInput(
                f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes}; expected one device of one "
                "machine: omit trainer=ddp and these settings"
            )
        if not last.is_file():
            continue
        earlier = read_earlier(last, training)
        # A run that is extended has a longer schedule too, if its period is that of the training.
        is_extended = earlier.steps != trainer.max_steps == training.scheduler.get("period")
        ignored = {*earlier.moved(), *(["scheduler.period"] if is_extended else [])}
        if changed := sorted(set(earlier.changed(settings_of(training))) - ignored):
            raise InvalidInput(
                f"{training.output_dir}: was trained with another {', '.join(changed)}; choose another output_dir, "
                "or remove that folder"
            )


def is_trained(training: DictConfig) -> bool:
    """Whether a run is finished.

    Raises:
        InvalidInput: the run has done more steps than requested.
    """
    last = checkpoint_of(training)
    return last.is_file() and is_finished(read_earlier(last, training), training)


def results_of(config: DictConfig, name: str, checkpoint: Path | None = None) -> Results:
    """Scores of a checkpoint, or of bicubic + blending if none is given; evaluated only if not done before."""
    folder = Path(config.output_dir) / "scores" / name
    method = "method=bicubic_blend" if checkpoint is None else override("checkpoint", checkpoint)
    scoring = scoring_config(config, folder, method)
    # With train=false the videos may be on another machine, and earlier scores will do.
    if not config.train and not Path(config.val_root).is_dir():
        results = read_results(folder)
        if other := ", ".join(other_settings(results.made_with, scoring)):
            raise InvalidInput(f"{folder}: scored with other settings: {other}; give val_root=DIR to score it again")
        print(f"val_root={config.val_root}: no such folder; using the scores in {folder}", file=sys.stderr)
        return results
    # Unfinished scores of an earlier checkpoint, or of other clips, are useless.
    return evaluate(scoring, discard_other=True)


def as_markdown(training: DictConfig, runs: list[TrainedRun], baseline: Results, left_out: dict[Run, str]) -> str:
    """The report's text.

    Args:
        training: the config of any of the runs; they differ only in ablation and seed.
        runs: all runs.
        baseline: the scores of bicubic + blending.
        left_out: runs that were left out, and why.
    """
    seeds = ", ".join(map(str, dict.fromkeys(run.seed for run in runs)))
    sets = dict.fromkeys(row.clip_set for row in baseline.rows)
    devices = dict.fromkeys(run.results.cost.device for run in runs if run.results.cost.device)
    omissions = "; ".join(f"{run_name(*run)} ({reason})" for run, reason in left_out.items())
    parts = [
        "# The ablations (a) to (e), trained and scored",
        f"{summary(training)}, seeds {seeds}; scored on {' and '.join(devices)}.",
        *([f"Left out: {omissions}."] if left_out else []),
        *(f"## Scores: {name}\n\n{score_table(name, runs, baseline).as_markdown()}" for name in sets),
        "## The orderings of the paper's Table 2",
        ordering_table(runs).as_markdown(),
        "## Training",
        f"![Validation PSNR over steps]({PICTURES}/curves.png)",
        training_table(runs).as_markdown(),
        "## Generated clips",
        *(f"![{motion} motion]({PICTURES}/{motion}.png)" for motion in SHOWN_CLIPS),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


@entry_point("study")
def main(config: DictConfig) -> None:
    """Runs the study, prints the report and says where it is."""
    try:
        report = study(config)
    except Interrupted as stop:
        raise Interrupted(stop.done, CONTINUE) from None
    except KeyboardInterrupt:
        # Not during a training or an evaluation, which would raise Interrupted.
        raise Interrupted("stopped", CONTINUE) from None
    print(report.read_text(encoding="utf-8"))
    print(f"report, curves and pictures: {report.parent}")


if __name__ == "__main__":
    main()
