"""A training run described in one line, for a report."""

from omegaconf import DictConfig


def summary(training: DictConfig) -> str:
    """Size of the network, steps, crops, learning rate, precision and initial weights of a training run.

    Args:
        training: the config of a run of the one-stage network.
    """
    model, loader = training.model, training.loader
    # May be left to the optimizer.
    rate = training.optimizer.get("lr")
    parts = [
        f"{training.trainer.max_steps} steps of {loader.batch_size} crops of {loader.crop}x{loader.crop} LR pixels",
        *([f"learning rate {rate:g}"] if isinstance(rate, int | float) else []),
        training.trainer.precision,
        f"begun {_beginning(training)}",
    ]
    size = f"{model.channels} channels, {model.feature_blocks} + {model.reconstruction_blocks} residual blocks"
    return f"{size}; {', '.join(parts)}"


def _beginning(training: DictConfig) -> str:
    """What a run began with; `initial_weights` take precedence, as in `stvsr.train.set_initial_weights`."""
    if training.initial_weights is not None:
        return f"with the weights of {training.initial_weights}"
    return "with blended frames" if training.blended_start else "with random weights"
