"""What is refused before the first step, the optimizer of a resumed run, and what steps and validations return."""

import csv
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch.optim.lr_scheduler import LambdaLR
from torchvision.ops import DeformConv2d

from conftest import SMALL_RUN
from stvsr.errors import InvalidInput
from stvsr.train import train
from stvsr.training.module import SpaceTimeModule, hyperparameters

Run = Callable[..., DictConfig]


def untrained(config: DictConfig) -> SpaceTimeModule:
    """A module with the config's network and objective, without a trainer."""
    return SpaceTimeModule(
        network=instantiate(config.model),
        model_config={},
        variant="e",
        settings={},
        objective=instantiate(config.objective),
        optimizer=torch.optim.Adam,
        scheduler=torch.optim.lr_scheduler.LambdaLR,
        cuda_graphs=False,
    )


@pytest.mark.parametrize(
    ("objective", "strategy", "refused"),
    [
        ("feature_interpolation", DDPStrategy(), True),
        ("flow_guided_offsets", DDPStrategy(), True),
        ("feature_reconstruction", DDPStrategy(), True),
        ("feature_interpolation", DDPStrategy(find_unused_parameters=True), False),
        ("feature_interpolation", SingleDeviceStrategy("cpu"), False),
        ("space_time", DDPStrategy(), False),
    ],
)
def test_processes_that_would_wait_for_gradients_of_other_parts_are_refused(
    configure: Run, monkeypatch: pytest.MonkeyPatch, objective: str, strategy: Strategy, refused: bool
) -> None:
    """DDP's own error comes at the second step and fills a page."""
    module = untrained(configure("train", *SMALL_RUN, f"objective={objective}"))
    monkeypatch.setattr(SpaceTimeModule, "trainer", SimpleNamespace(strategy=strategy, precision="32-true"))
    says = pytest.raises(InvalidInput, match=r"trains \d+ of the network's \d+ .*ddp_find_unused_parameters_true")
    with says if refused else nullcontext():
        module.on_fit_start()


def test_bfloat16_on_a_gpu_that_has_none_is_refused_before_the_first_step(
    configure: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN's own message would suggest a lack of memory."""
    module = untrained(configure("train", *SMALL_RUN))
    on_a_gpu = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")), precision="bf16-mixed")
    monkeypatch.setattr(SpaceTimeModule, "trainer", on_a_gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(InvalidInput, match=r"bf16-mixed on a GPU without bfloat16; .* add trainer\.precision=32-true"):
        module.on_fit_start()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    module.on_fit_start()


def test_an_objective_for_another_network_is_refused_before_the_first_step(
    small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpaceTimeModule, "training_step", lambda *arguments: pytest.fail("a step was made"))
    with pytest.raises(InvalidInput, match="the network is a ZoomingSlowMo: use an experiment of two_stage"):
        train(small_run("objective=frame_interpolation_l1"))


def test_a_schedule_that_a_resumed_run_could_not_change_is_refused(small_run: Run) -> None:
    others = ["~scheduler.period", "~scheduler.minimum", "~scheduler.warmup"]
    config = small_run("scheduler._target_=torch.optim.lr_scheduler.ConstantLR", *others)
    with pytest.raises(InvalidInput, match="ConstantLR is not a LambdaLR"):
        train(config)


def test_gradients_that_would_not_be_clipped_are_told_with_a_remedy(small_run: Run) -> None:
    fused = ["+optimizer.fused=true", "trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=10"]
    with pytest.raises(InvalidInput, match=r"gradient_clip_val=10: .* add optimizer\.fused=false"):
        train(small_run(*fused))
    assert train(small_run(*fused, "optimizer.fused=false", folder="clipped"))


def test_a_network_that_waits_for_the_host_is_not_recorded(configure: Run, tmp_path: Path) -> None:
    settings = [option for option in SMALL_RUN if not option.startswith("model.")]
    small = [f"+frame_upscaler.{size}" for size in ("channels=8", "groups=1", "blocks=1", "reduction=2")]
    rcan = ["experiment=two_stage/rcan", *settings, *small, "cuda_graphs=true", f"output_dir='{tmp_path}'"]
    with pytest.raises(InvalidInput, match="cuda_graphs=true with TwoStage, whose steps cannot be recorded"):
        train(configure("train", *rcan))


@pytest.mark.parametrize("objective", ["feature_interpolation", "flow_guided_offsets", "feature_reconstruction"])
def test_steps_of_an_objective_that_trains_a_part_are_not_recorded(small_run: Run, objective: str) -> None:
    """They run only that part, but the whole network is what would be recorded."""
    with pytest.raises(InvalidInput, match=r"cuda_graphs=true with an objective .* a part .*cuda_graphs=false"):
        train(small_run("ablation=b", "cuda_graphs=true", f"objective={objective}"))


def test_a_part_of_ones_own_is_not_recorded(configure: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that escape a recording, as torchvision's do, would learn nothing, without an error."""
    module = untrained(configure("train", *SMALL_RUN, "cuda_graphs=true"))
    monkeypatch.setattr(SpaceTimeModule, "trainer", SimpleNamespace(world_size=1, precision="32-true"))
    module._check_recordable(module.network)
    module.network.interpolation.sample = DeformConv2d(8, 8, 3)
    with pytest.raises(InvalidInput, match="cuda_graphs=true with DeformConv2d, whose steps cannot be recorded: add"):
        module._check_recordable(module.network)


def test_the_rate_rises_to_the_one_that_is_configured(small_run: Run, tmp_path: Path) -> None:
    """Later rates are fractions of the configured rate, not of the first step's, which the schedule has reduced."""
    train(small_run("optimizer.lr=1e-3", "scheduler.warmup=2", "scheduler.period=1000000", "trainer.max_steps=5"))
    with (tmp_path / "run" / "csv" / "metrics.csv").open(newline="") as file:
        rates = [float(row["train/learning_rate"]) for row in csv.DictReader(file) if row["train/learning_rate"]]
    assert rates[:2] == pytest.approx([1e-3 / 3, 2e-3 / 3], rel=1e-3)
    assert rates[-1] == pytest.approx(1e-3, rel=1e-3)


def test_a_resumed_run_takes_the_configured_learning_rate(small_run: Run, tmp_path: Path) -> None:
    """A lower rate is the remedy after divergence; the saved one must not win."""
    train(small_run("trainer.max_steps=2", "optimizer.lr=1e-3"))
    last = tmp_path / "run/checkpoints/last.ckpt"
    # Two more steps, as the schedule sets the rate of the second.
    metrics = train(small_run("trainer.max_steps=4", "optimizer.lr=1e-5", f"resume='{last}'", folder="resumed"))
    assert metrics["train/learning_rate"] == pytest.approx(1e-5, rel=1e-3)


def test_a_resumed_run_takes_the_optimizers_configured_hyperparameters(small_run: Run, tmp_path: Path) -> None:
    train(small_run("trainer.max_steps=2"))
    last = tmp_path / "run/checkpoints/last.ckpt"
    other = ["optimizer.betas=[0.8,0.95]", "+optimizer.weight_decay=0.25", "trainer.max_steps=3", f"resume='{last}'"]
    train(small_run(*other, folder="resumed"))
    saved = torch.load(tmp_path / "resumed/checkpoints/last.ckpt", weights_only=True)
    (group,) = saved["optimizer_states"][0]["param_groups"]
    assert (tuple(group["betas"]), group["weight_decay"]) == ((0.8, 0.95), 0.25)


class Own(torch.optim.AdamW):
    """Passes its settings on as `**settings`, as many custom optimizers do."""

    def __init__(self, parameters: Any, **settings: Any) -> None:
        super().__init__(parameters, **settings)


def test_each_group_of_parameters_keeps_what_it_was_made_with_and_what_it_has_learned() -> None:
    """For example, biases may not decay, or an optimizer may keep a rate that it has found in the group."""
    weight, bias = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    groups = [{"params": [weight], "lr": 0.1}, {"params": [bias], "weight_decay": 0.0, "found_rate": 3.0, "step": 7}]
    first, second = hyperparameters(Own(groups, lr=0.2, weight_decay=0.5))
    assert (first["lr"], first["weight_decay"]) == (0.1, 0.5)
    assert (second["lr"], second["weight_decay"]) == (0.2, 0.0)
    assert not {"params", "found_rate", "step"} & second.keys(), "they would replace what a resumed run has restored"


class Decayless:
    """Makes an optimizer whose second group has no weight decay."""

    def __call__(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        first, *others = parameters
        return torch.optim.AdamW([{"params": [first]}, {"params": others, "weight_decay": 0.0, "lr": 0.05}], lr=0.1)


def test_groups_of_parameters_are_trained_as_they_were_made(small_run: Run, tmp_path: Path) -> None:
    config = small_run("trainer.max_steps=1", "trainer.val_check_interval=1")
    with open_dict(config):
        config.optimizer = {"_target_": f"{__name__}.Decayless"}
    train(config)
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    groups = saved["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert [group["initial_lr"] for group in groups] == [0.1, 0.05]
    assert groups[1]["lr"] == pytest.approx(groups[0]["lr"] / 2)


def test_the_state_of_another_optimizer_is_refused(small_run: Run, tmp_path: Path) -> None:
    train(small_run("trainer.max_steps=1", "trainer.val_check_interval=1"))
    other = ["optimizer=adamax", "trainer.max_steps=2", f"resume='{tmp_path}/run/checkpoints/last.ckpt'"]
    with pytest.raises(InvalidInput, match="the run was trained with Adam, expected Adamax; choose that optimizer"):
        train(small_run(*other, folder="other"))


def test_the_state_of_an_optimizer_that_does_not_survive_another_ones_is_refused_before_it_is_loaded(
    small_run: Run, tmp_path: Path
) -> None:
    """Adam would look for step counts, which SGD does not keep."""
    sgd = ["optimizer._target_=torch.optim.SGD", "~optimizer.betas", "+optimizer.momentum=0.9", "optimizer.lr=1e-6"]
    train(small_run(*sgd, "scheduler.minimum=0", "trainer.max_steps=1"))
    with pytest.raises(InvalidInput, match="the run was trained with SGD, expected Adam; choose that optimizer"):
        train(small_run("trainer.max_steps=2"))


def test_a_switch_of_the_optimizer_that_a_resumed_run_did_not_have_is_refused(small_run: Run) -> None:
    """Otherwise it would be reported as applied, but Adam would lack the maxima that amsgrad keeps."""
    train(small_run("trainer.max_steps=1"))
    with pytest.raises(InvalidInput, match=r"optimizer\.amsgrad=True: the run was trained with False; choose that, or"):
        train(small_run("+optimizer.amsgrad=true", "trainer.max_steps=2"))


class Decay:
    """A schedule with settings of its own."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: int) -> float:
        return self.rate**step


def decaying(optimizer: torch.optim.Optimizer, *, rate: float) -> LambdaLR:
    return LambdaLR(optimizer, Decay(rate))


def test_a_resumed_run_takes_the_configured_settings_of_a_schedule_that_is_an_object(
    small_run: Run, tmp_path: Path
) -> None:
    def trained(rate: float, steps: int) -> float:
        config = small_run(f"trainer.max_steps={steps}", "optimizer.lr=1e-3")
        with open_dict(config):
            config.scheduler = {"_target_": f"{__name__}.decaying", "_partial_": True, "rate": rate}
        train(config)
        saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
        return float(saved["optimizer_states"][0]["param_groups"][0]["lr"])

    trained(0.5, 1)
    assert trained(0.9, 2) == pytest.approx(1e-3 * 0.9**2)


def test_a_run_whose_steps_cannot_be_recorded_trains_without_and_says_so(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(network: object, lr: object) -> None:
        raise RuntimeError("cuDNN Frontend error: unable to find an engine")

    monkeypatch.setattr("stvsr.training.module.recorded_step", fail)
    with pytest.warns(UserWarning, match=r"not recorded as CUDA graphs \(cuDNN Frontend error"):
        train(small_run("cuda_graphs=true"))
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_a_loss_that_is_a_map_is_refused(small_run: Run) -> None:
    with pytest.raises(InvalidInput, match=r"the loss of a batch has shape \(.*\); expected a scalar sum"):
        train(small_run("objective.loss._target_=torch.sub"))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("objective.loss=null", "objective.loss=None; expected a function"),
        ("objective.loss._target_=torch.nn.L1Loss", "L1Loss is a class.*add objective.loss._partial_=false"),
    ],
)
def test_a_loss_that_cannot_be_called_is_refused(small_run: Run, setting: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        train(small_run(setting))


def test_a_network_without_parameters_is_refused_in_words(configure: Run, tmp_path: Path) -> None:
    settings = [setting for setting in SMALL_RUN if not setting.startswith("model.")]
    config = configure(
        "train", "experiment=two_stage/end_to_end", "frame_interpolator=blend", "frame_upscaler=bicubic", *settings
    )
    config.output_dir = str(tmp_path)
    with pytest.raises(InvalidInput, match="the network has nothing to learn; choose another model"):
        train(config)


def test_a_validation_has_the_scores_of_its_own_clips_alone() -> None:
    done: list[str] = []
    scores = SimpleNamespace(compute=lambda: done.append("compute") or {}, reset=lambda: done.append("reset"))
    SpaceTimeModule.on_validation_epoch_end(SimpleNamespace(val_scores=scores))
    assert done == ["compute", "reset"]
