"""Trains a network: `python -m stvsr.train experiment=full_bidir`; `-m ablation=a,b,c,d,e` for the paper's Table 2."""

import os
import warnings
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stvsr.checkpoint import fill, permitted_class, weights_for
from stvsr.cli import entry_point
from stvsr.config import made_of, resolved, targets_in
from stvsr.errors import Interrupted, InvalidInput
from stvsr.models.blended_start import start_at_blended_frames
from stvsr.models.network import Network, check_network, parameter_count
from stvsr.models.two_stage import TwoStage
from stvsr.ops.deformable import use_backend
from stvsr.stage_weights import load_stages
from stvsr.tracking import describe_run, finish, keep_run
from stvsr.training.checkpoints import BestCheckpoint, LastCheckpoint, to_continue
from stvsr.training.continuation import is_finished, run_to_continue, settings_of
from stvsr.training.guards import NonFiniteGuard
from stvsr.training.module import SpaceTimeModule
from stvsr.training.objectives import check_loss
from stvsr.training.settings import check_values
from stvsr.unfinished import folder_lock


def train(config: DictConfig) -> dict[str, float]:
    """Trains the network that a config describes and validates it on the way.

    Args:
        config: composed from `conf/train.yaml`.

    Returns:
        The last value of everything logged; empty if the run was finished before.

    Raises:
        UserError: the config or the data is not as required, training diverged, or another run uses the folder.
        Interrupted: stopped; says how to resume.
    """
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # The first process of a run holds the lock for all of them.
    lock = nullcontext() if _is_helper(config) else folder_lock(folder, "training", "choose another output_dir")
    with lock:
        return _train(config)


def _is_helper(config: DictConfig) -> bool:
    """Whether this process is not the first of its run's."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    # Until there is a trainer, the first process of every machine has rank 0.
    machine = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    return rank > 0 or (config.trainer.num_nodes != 1 and machine != "0")


def _train(config: DictConfig) -> dict[str, float]:
    # Lightning warns of every loader without a state; ours needs none, as clips depend on the step alone.
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    # Not so: `keep_earlier_logs` keeps them.
    warnings.filterwarnings("ignore", message=".*Previous log files in this directory will be deleted.*")
    check_values(config)
    # Hydra reads a name such as 12 as a number.
    config.variant = str(config.variant)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    use_backend(config.deformable)
    model_config = resolved(config.model)
    earlier = run_to_continue(config)
    if earlier is not None and is_finished(earlier, config):
        rank_zero_info(f"{earlier.path}: has all its {earlier.steps} steps, nothing is left to do")
        return {}
    resume = None if earlier is None else earlier.path
    warn_of_foreign_classes(model_config)
    data = instantiate(config.loader)
    data.setup("fit")

    network = check_network(instantiate(config.model), "model")
    # A resumed run has its own weights; the files it started from may be gone.
    if earlier is None:
        set_initial_weights(network, config)
    objective = instantiate(config.objective, _convert_="all")
    if hasattr(objective, "loss"):
        check_loss(objective.loss)
    module = SpaceTimeModule(
        network=network,
        model_config=model_config,
        variant=config.variant,
        settings=settings_of(config),
        objective=objective,
        # Plain values: some optimizers store their settings as given, and a checkpoint must not hold Hydra's types.
        optimizer=instantiate(config.optimizer, _convert_="all"),
        scheduler=instantiate(config.scheduler, _convert_="all"),
        cuda_graphs=config.cuda_graphs,
    )
    if not _is_helper(config):
        keep_run(config, anew=earlier is None)
    callbacks: list[pl.Callback] = made_of(config.callbacks, _convert_="all")
    # Checkpoints last, to include what other callbacks compute, such as an average of weights.
    callbacks.sort(key=lambda callback: isinstance(callback, BestCheckpoint | LastCheckpoint))
    loggers: list[Logger] = made_of(config.logger)
    # No sanity check: a validation before the first step would take part in choosing best.ckpt.
    trainer: pl.Trainer = instantiate(config.trainer, logger=loggers, callbacks=callbacks, num_sanity_val_steps=0)
    check_processes(trainer)
    keep_earlier_logs(loggers)
    last = Path(config.callbacks.last.path)
    try:
        describe_run(loggers, config, parameters=parameter_count(module.network))
        stopped = fit(trainer, module, data, last=last, resume=resume)
    except SystemExit as stop:
        # Lightning exits so after SIGTERM in the validation outside training (status 0), and after a second Ctrl-C
        # (status 1).
        if not isinstance(stop, SIGTERMException) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        remedy = f"to continue from the last saved step, {to_continue(last)}" if last.is_file() else None
        raise Interrupted("stopped at once", remedy) from None
    finally:
        finish(loggers)
    if stopped is not None:
        # So that a sweep or a study stops as well.
        raise stopped
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def fit(
    trainer: pl.Trainer,
    module: SpaceTimeModule,
    data: pl.LightningDataModule,
    *,
    last: Path,
    resume: Path | None,
) -> Interrupted | None:
    """Trains to the end, or until stopped; then returns the interruption.

    Args:
        trainer: with its callbacks.
        module: what to train.
        data: what to train on.
        last: the checkpoint that the run writes.
        resume: the checkpoint to resume from; None to start anew.

    Raises:
        UserError: training diverged.
    """
    # With weights_only nothing in a checkpoint is executed.
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(c, LastCheckpoint) and c.lacks_validation(trainer) for c in callbacks):
        # It failed or was killed between the last step and its validation; to Lightning such a run is finished.
        # Without a path it would load what an earlier SLURM job may have left.
        trainer.validate(module, datamodule=data, ckpt_path=resume or last, weights_only=True, verbose=False)
    stopped = next((c.interruption for c in callbacks if isinstance(c, LastCheckpoint) and c.interruption), None)
    for guard in (c for c in callbacks if isinstance(c, NonFiniteGuard) and c.in_a_row > 0):
        if stopped is None:
            # The run ended on skipped steps, which were not saved.
            raise guard.divergence(trainer)
    return stopped


def set_initial_weights(network: Network, config: DictConfig) -> None:
    """Sets the weights that a run starts from: those of files, or those of `blended_start`.

    Raises:
        InvalidInput: a file is missing or of another network, or the network is unsuited to `blended_start`.
    """
    if isinstance(network, TwoStage):
        load_stages(network, config.weights, required=False)
        for stage in network.stages.values():
            if stage.learns and config.initial_weights is None and config.weights.get(stage.option) is None:
                rank_zero_warn(f"{stage.title} starts untrained; to give it weights, add weights.{stage.option}=FILE")
    if config.initial_weights is not None:
        fill(network, weights_for(config.initial_weights, resolved(config.model)), config.initial_weights)
    elif config.blended_start:
        start_at_blended_frames(network)


def check_start(config: DictConfig) -> None:
    """Refuses a run that could not start, before a study spends hours on other runs.

    Raises:
        InvalidInput: names the variant, and says what to change.
    """
    try:
        set_initial_weights(instantiate(config.model), config)
    except InvalidInput as error:
        raise InvalidInput(f"({config.variant}), in the training=[…] settings: {error}") from None


def check_processes(trainer: pl.Trainer) -> None:
    """Refuses a number of processes, started by a cluster or torchrun, other than that of the devices.

    Raises:
        InvalidInput: says how many there are, and how to start one for each device.
    """
    devices, machines = trainer.num_devices, trainer.num_nodes
    if trainer.world_size != devices * machines:
        raise InvalidInput(
            f"{trainer.world_size} process(es) were started for {devices} device(s) on each of {machines} machine(s); "
            f"expected one for each device: srun --ntasks-per-node={devices}, hydra.launcher.tasks_per_node={devices} "
            f"or torchrun --nproc-per-node={devices}; or choose another trainer.devices"
        )


def warn_of_foreign_classes(model_config: dict[str, Any]) -> None:
    """Warns, before days of training, of classes that `load_network` will not build from a checkpoint."""
    for target in targets_in(model_config):
        try:
            permitted_class(target, "model")
        except InvalidInput as error:
            rank_zero_warn(f"{error}; only stvsr.train will load the checkpoints")


@rank_zero_only
def keep_earlier_logs(loggers: list[Logger]) -> None:
    """Renames the log of an earlier part of the run, which the CSV logger would delete."""
    for logger in loggers:
        if isinstance(logger, CSVLogger) and (log := Path(logger.log_dir) / "metrics.csv").is_file():
            names = (log.with_name(f"metrics.{part}.csv") for part in count(1))
            log.rename(next(name for name in names if not name.exists()))


@entry_point("train")
def main(config: DictConfig) -> None:
    """Trains, and says where the output is."""
    if train(config):
        print(f"checkpoints, pictures and logs: {Path(config.output_dir)}")


if __name__ == "__main__":
    main()
