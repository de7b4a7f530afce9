"""A training run from its config: what it starts from, what is refused, and who may run in its folder."""

import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from conftest import is_taken, taken_elsewhere
from stvsr.checkpoint import export, load_network
from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_upscaling.rcan import RCAN
from stvsr.models.two_stage import TwoStage
from stvsr.train import set_initial_weights, train
from stvsr.training.settings import check_apart

FROZEN = ["optimizer.lr=1e-20", "scheduler.minimum=0", "trainer.max_steps=1", "trainer.val_check_interval=1"]
"""A run that ends with the weights it began with."""

Run = Callable[..., DictConfig]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_network(folder / "checkpoints" / "last.ckpt").state_dict()


def test_a_run_begins_with_the_weights_it_is_given_and_a_new_schedule(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*FROZEN, "seed=1", folder="first"))
    export(tmp_path / "first" / "checkpoints" / "last.ckpt", tmp_path / "first.safetensors")
    # A recipe may ask for a blended start; it applies only where no weights are given.
    given = ["blended_start=true", f"initial_weights='{tmp_path}/first.safetensors'"]
    train(small_run(*FROZEN, "seed=2", *given, folder="second"))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor.half().float(), rtol=0, atol=1e-12)
    saved = torch.load(tmp_path / "second" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 1


def test_weights_of_another_network_are_refused(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*FROZEN, "ablation=a", folder="first"))
    config = small_run("ablation=b", f"initial_weights='{tmp_path}/first/checkpoints/last.ckpt'")
    with pytest.raises(InvalidInput, match="a checkpoint of another network: its interpolation"):
        train(config)


def test_the_weights_of_b_are_a_beginning_of_e(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*FROZEN, "ablation=b", "blended_start=true", folder="first"))
    given = f"initial_weights='{tmp_path}/first/checkpoints/last.ckpt'"
    train(small_run(*FROZEN, "ablation=e", given, folder="second"))
    first, second = (load_network(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("first", "second"))
    lr = torch.rand(1, 2, 3, 16, 16)
    with torch.no_grad():
        # The two tanh of the recurrence are not quite linear.
        torch.testing.assert_close(second(lr), first(lr), rtol=0, atol=0.01)


def test_a_blended_start_is_part_of_a_run(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*FROZEN, "blended_start=true"))
    carries = weights(tmp_path / "run")["features.head.weight"][0, 0]
    torch.testing.assert_close(carries, torch.eye(3)[1].outer(torch.eye(3)[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=-1", "seed=-1; expected a whole number, 0 or more"),
        ("seed=4294967296", "seed=4294967296; expected 0 to 4294967295"),
        ("cuda_graphs=no", "cuda_graphs=no; expected true or false"),
        ("model.checkpointing=no", "model.checkpointing=no; expected true or false"),
        ("+logger.wandb.offline=no", "logger.wandb.offline=no; expected true or false"),
        ("trainer.max_steps=0", "trainer.max_steps=0; expected a whole number, 1 or more"),
        ("trainer.val_check_interval=0", "trainer.val_check_interval=0; expected a whole number, 1 or more"),
        ("callbacks.last.every_steps=0", "every_steps=0; expected a whole number, 1 or more"),
        ("callbacks.non_finite.patience=0", "patience=0; expected a whole number, 1 or more"),
        ("callbacks.pictures.clips=-1", "pictures.clips=-1; expected a whole number, 0 or more"),
        ("data.train_source.clips=0", "clips=0; expected a whole number, 1 or more"),
        ("model.feature_blocks=-1", "feature_blocks=-1; expected 0 or more"),
        ("optimizer.lr=0", "optimizer.lr=0; expected a finite number above 0"),
        ("optimizer.lr=-1", "optimizer and scheduler: Invalid learning rate: -1"),
        ("optimizer.lr=4e-4x", "optimizer.lr=4e-4x; expected a number, such as 4e-4"),
        ("model.channels=0", "model.channels=0; expected a whole number, 1 or more"),
        ("callbacks.last=null", "callbacks.last=null: nothing of the run would be saved; omit it"),
        ("+trainer.limit_val_batches=0", "trainer.limit_val_batches=0: expected 1 or more"),
        ("optimizer.betas=[2,0.9]", "optimizer and scheduler: Invalid beta parameter"),
        ("optimizer.betas=0.9", "optimizer and scheduler: "),
        ("optimizer.betas=[0.9]", "optimizer and scheduler: list index out of range; choose other values"),
        ("scheduler.period=soon", "optimizer and scheduler: "),
        ("scheduler.minimum=1", "scheduler.minimum=1; expected 0 to optimizer.lr="),
        ("scheduler.minimum=-1e-7", "scheduler.minimum=-1e-07; expected 0 to"),
        ("scheduler._target_=torch.optim.lr_scheduler.StepLR", "unexpected keyword argument 'period'; choose other"),
        ("trainer.precision=bf16-true", "trainer.precision=bf16-true; expected 32-true, 64-true, bf16-mixed"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed; expected 32-true, 64-true, bf16-mixed"),
        ("trainer.precision=16", "trainer.precision=16; expected 32-true, 64-true, bf16-mixed"),
    ],
)
def test_values_that_cannot_be_trained_with_are_refused_in_words(small_run: Run, override: str, says: str) -> None:
    # Hydra wraps errors of what it makes.
    with pytest.raises((InvalidInput, InstantiationException), match=re.escape(says)):
        train(small_run(override))


@pytest.mark.parametrize(("root", "val_root"), [("clips", "clips/val"), ("clips/../clips", "clips/val"), ("a/b", "a")])
def test_clips_to_validate_on_that_would_be_trained_on_are_refused(configure: Run, root: str, val_root: str) -> None:
    """Folders are searched recursively."""
    with pytest.raises(InvalidInput, match=f"data.val_root={val_root}: .* choose separate folders"):
        train(configure("train", "output_dir=run", "data=videos", f"data.root={root}", f"data.val_root={val_root}"))


def test_folders_are_apart_by_whatever_links_they_are_named(tmp_path: Path) -> None:
    """Hidden folders are not searched."""
    for folder in ("elsewhere", "clips/.val"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "clips" / "val").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "other").symlink_to(tmp_path / "clips")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for root, val_root in (("clips", "clips/val"), ("other", "clips/val"), ("clips", "other/val")):
        with pytest.raises(InvalidInput, match="choose separate folders"):
            check_apart(OmegaConf.create({"root": f"{tmp_path}/{root}", "val_root": f"{tmp_path}/{val_root}"}))
    for root, val_root in (("clips", "clips"), ("clips", "other"), ("clips", "clips/.val"), ("circle", "clips")):
        check_apart(OmegaConf.create({"root": f"{tmp_path}/{root}", "val_root": f"{tmp_path}/{val_root}"}))


def test_a_run_that_has_more_steps_already_is_refused(small_run: Run, tmp_path: Path) -> None:
    train(small_run("trainer.max_steps=2", "trainer.val_check_interval=2"))
    shorter = ["trainer.max_steps=1", f"resume='{tmp_path}/run/checkpoints/last.ckpt'"]
    with pytest.raises(InvalidInput, match=r"last\.ckpt: has 2 steps, more than trainer\.max_steps=1; expected"):
        train(small_run(*shorter, folder="other"))


def test_a_run_that_goes_on_does_not_need_the_weights_it_began_with(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*FROZEN, folder="first"))
    given = f"initial_weights='{tmp_path}/first/checkpoints/last.ckpt'"
    train(small_run(*FROZEN, given, folder="second"))
    shutil.rmtree(tmp_path / "first")
    train(small_run(*FROZEN, given, "trainer.max_steps=2", folder="second"))
    saved = torch.load(tmp_path / "second" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2


@pytest.mark.parametrize(
    "started",
    [
        {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "mine", "SLURM_JOB_ID": "1", "SLURM_LOCALID": "0", "SLURM_PROCID": "0"},
        {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "1"}
        | {"LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
    ],
    ids=["slurm", "torchrun"],
)
def test_devices_that_no_process_was_started_for_are_refused(
    small_run: Run, monkeypatch: pytest.MonkeyPatch, started: dict[str, str]
) -> None:
    """Lightning would use one GPU of eight without a warning."""
    for name, value in (started | {"SLURM_NODEID": "0"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InvalidInput, match=r"\d process\(es\) were started for 2 device\(s\) .* srun --ntasks-per-node=2"
    ):
        train(small_run("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "loader.batch_size=4"))


def test_a_stage_that_begins_untrained_is_said() -> None:
    """Weights given for another network do not count: that one does not run."""
    network = TwoStage(interpolator=Blend(), upscaler=RCAN(channels=16, groups=1, blocks=1))
    given = OmegaConf.create({"weights": {"edvr": "a.pth"}, "initial_weights": None, "blended_start": False})
    with pytest.warns(UserWarning, match=r"RCAN starts untrained; .* add weights\.rcan=FILE"):
        set_initial_weights(network, given)


@pytest.mark.parametrize("name", ["NODE_RANK", "GROUP_RANK"])
def test_a_second_machine_of_a_run_does_not_ask_for_the_lock_that_the_first_holds(
    small_run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def taken(*_: object) -> None:
        raise InvalidInput("another training is running there")

    monkeypatch.setattr("stvsr.train._train", lambda config: {"trained": 1.0})
    monkeypatch.setattr("stvsr.train.folder_lock", taken)
    for number, machines, helps in (("0", 2, False), ("1", 2, True), ("1", 1, False)):
        monkeypatch.setenv(name, number)
        with nullcontext() if helps else pytest.raises(InvalidInput, match="another training is running there"):
            assert train(small_run(f"trainer.num_nodes={machines}")) == {"trained": 1.0}


def test_a_second_training_in_a_folder_is_refused_while_the_first_runs(small_run: Run, tmp_path: Path) -> None:
    """Two may start in the same second, and each would overwrite the other's checkpoints."""
    (tmp_path / "run").mkdir()
    with (
        taken_elsewhere(tmp_path / "run", "training"),
        pytest.raises(InvalidInput, match="another training is running there; wait for it, or choose"),
    ):
        train(small_run(*FROZEN))
    train(small_run(*FROZEN))


def test_a_training_keeps_a_second_one_out_of_its_folder_while_it_runs(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stvsr.train._train", lambda config: {"taken": float(is_taken(tmp_path / "run"))})
    assert train(small_run()) == {"taken": 1.0}


def test_a_run_without_a_log_trains(small_run: Run, tmp_path: Path) -> None:
    train(small_run("trainer.log_every_n_steps=0", "trainer.max_steps=2"))
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()


def test_loggers_and_callbacks_that_are_null_are_left_out(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*FROZEN, "logger=wandb", *(f"{name}=null" for name in ("logger.wandb", "callbacks.best"))))
    assert {path.name for path in (tmp_path / "run").rglob("*.c*")} == {"last.ckpt", "metrics.csv"}
    train(small_run(*FROZEN, "logger.csv=null", folder="silent"))
    assert {path.name for path in (tmp_path / "silent").iterdir()} == {"checkpoints", "lock"}


def test_it_is_said_before_training_that_a_network_of_elsewhere_cannot_be_loaded(small_run: Run) -> None:
    with pytest.warns(
        UserWarning, match=r"names .torch\.nn\.Identity.; only classes of stvsr\.models .* only stvsr.train will load"
    ):
        train(small_run(*FROZEN, "ablation=b", "model.propagation._target_=torch.nn.Identity"))
