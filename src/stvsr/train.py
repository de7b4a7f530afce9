"""Trains a network: `python -m stvsr.train experiment=full_bidir`; `-m ablation=a,b,c,d,e` for the paper's Table 2."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger

from stvsr.checkpoint import check_same_network
from stvsr.cli import entry_point
from stvsr.data.clip import MOTION_SPLITS, UNSPLIT
from stvsr.training.module import SpaceTimeModule


def train(config: DictConfig) -> dict[str, float]:
    """Trains the network a config describes and validates it on the way.

    Args:
        config: composed from `conf/train.yaml`.

    Returns:
        The last value of everything that was logged.

    Raises:
        UserError: the config or the data is not as it should be, or training diverged.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model_config = resolved(config.model)
    if config.resume is not None:
        check_same_network(config.resume, model_config)

    data = instantiate(config.loader)
    module = SpaceTimeModule(
        network=instantiate(config.model),
        model_config=model_config,
        optimizer=instantiate(config.optimizer),
        scheduler=instantiate(config.scheduler),
    )
    loggers: list[Logger] = list(instantiate(config.logger).values())
    callbacks: list[pl.Callback] = list(instantiate(config.callbacks).values())
    trainer: pl.Trainer = instantiate(config.trainer, logger=loggers, callbacks=callbacks)
    describe_run(loggers, config, parameters=sum(p.numel() for p in module.network.parameters()))

    # Our own checkpoints hold counters of Lightning's beside tensors and plain values, nothing to be executed.
    trainer.fit(module, datamodule=data, ckpt_path=config.resume, weights_only=True)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def resolved(config: DictConfig) -> dict[str, Any]:
    """A config as plain values, without references to other parts of it."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def describe_run(loggers: list[Logger], config: DictConfig, *, parameters: int) -> None:
    """Tells each logger what is run, and W&B that the best validation score is the one to show."""
    description = resolved(config)
    for logger in loggers:
        logger.log_hyperparams({**description, "parameters": parameters})
        if isinstance(logger, WandbLogger):
            for metric in ("psnr", "ssim"):
                for split in (*MOTION_SPLITS, UNSPLIT, "mean"):
                    logger.experiment.define_metric(f"val/{metric}/{split}", summary="max")


@entry_point("train")
def main(config: DictConfig) -> None:
    """Trains, and says where everything is."""
    train(config)
    print(f"checkpoints, pictures and logs: {Path(config.output_dir)}")


if __name__ == "__main__":
    main()
