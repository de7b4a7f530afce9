"""Every file below conf/ can be composed and instantiated, and something takes each of its keys."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from stvsr.config import CONFIG_DIR
from stvsr.configuration_errors import explain
from stvsr.data.synthetic import MOTION_RANGES
from stvsr.evaluation.protocols import Protocol

VARIANTS = {"full_bidir": "e", "dconvlstm": "d", "convlstm": "c", "dfi": "b", "naive_interp": "a"}

SCORING_ONLY = {"table1", "vid4"}
"""Data that has clips to score and none to train on."""


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def build(config: DictConfig) -> None:
    """Instantiates all that a training run makes of its config."""
    data = instantiate(config.loader)
    assert isinstance(data, pl.LightningDataModule)
    for which in ("train_source", "val_source"):
        source = instantiate(config.data[which])
        assert isinstance(source, partial)
        # Calling it would read data, which is not there.
        inspect.signature(source.func).bind(*source.args, **source.keywords)
    # Only the keys matter here, and some networks are large.
    with torch.device("meta"):
        network = instantiate(config.model)
    optimizer = instantiate(config.optimizer)(network.parameters())
    instantiate(config.scheduler)(optimizer)
    instantiate(config.objective)
    assert all(isinstance(callback, pl.Callback) for callback in instantiate(config.callbacks).values())
    assert OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("experiment", VARIANTS)
def test_every_experiment_of_the_paper_is_an_ablation_with_the_papers_recipe(
    configure: Callable[..., DictConfig], experiment: str, tmp_path: Path
) -> None:
    config = configure("train", f"experiment={experiment}", f"output_dir='{tmp_path}'", "model.channels=8")
    build(config)
    assert config.variant == VARIANTS[experiment]
    assert (config.loader.batch_size, config.loader.crop, config.trainer.max_steps) == (24, 32, 600_000)
    assert (config.optimizer.lr, config.scheduler.period, config.scheduler.minimum) == (4e-4, 150_000, 1e-7)
    assert config.scheduler.warmup == 0
    assert list(config.optimizer.betas) == [0.9, 0.99]
    assert (config.model.feature_blocks, config.model.reconstruction_blocks) == (5, 40)
    assert config.model.checkpointing is False, "it would take a third more work"


@pytest.mark.parametrize("experiment", sorted({*options("experiment")} - {*VARIANTS}))
def test_every_experiment_of_ours_builds(configure: Callable[..., DictConfig], experiment: str, tmp_path: Path) -> None:
    config = configure("train", f"experiment={experiment}", "data.root=/nowhere", f"output_dir='{tmp_path}'")
    build(config)
    assert config.scheduler.period == config.trainer.max_steps, "one cosine, to its end"


@pytest.mark.parametrize("experiment", options("experiment/two_stage"))
def test_every_two_stage_experiment_builds(
    configure: Callable[..., DictConfig], experiment: str, tmp_path: Path
) -> None:
    """SuperSloMo's goes without VGG-16, whose weights would be downloaded."""
    small = ["objective.loss.perceptual=0"] if experiment == "superslomo" else []
    config = configure("train", f"experiment=two_stage/{experiment}", f"output_dir='{tmp_path}'", *small)
    build(config)


def test_another_optimizer_keeps_its_own_betas(configure: Callable[..., DictConfig]) -> None:
    for recipe in options("recipe"):
        config = configure("train", f"recipe={recipe}", "optimizer=adamax")
        assert config.optimizer.betas == [0.9, 0.999]


def test_starter_weights_are_of_the_papers_network(configure: Callable[..., DictConfig]) -> None:
    ours, papers = (
        configure("train", f"experiment={name}", *root)
        for name, root in (("starter", ["data.root=/nowhere"]), ("full_bidir", []))
    )
    assert (ours.model, ours.variant) == (papers.model, papers.variant)


@pytest.mark.parametrize(
    "group", ["ablation", "recipe", "data", "logger", "optimizer", "scheduler", "callbacks", "loader"]
)
def test_every_option_of_a_group_builds(configure: Callable[..., DictConfig], group: str, tmp_path: Path) -> None:
    assert options(group), f"conf/{group} is empty"
    for option in options(group):
        if group == "data" and option in SCORING_ONLY:
            assert configure("train", f"data={option}").data.train_source is None
            continue
        root = [] if option == "synthetic" or group != "data" else ["data.root=/nowhere"]
        root += ["data.pack=/nowhere"] if option == "vimeo90k_packed" else []
        config = configure("train", f"{group}={option}", f"output_dir='{tmp_path}'", "model.channels=8", *root)
        build(config)


@pytest.mark.parametrize("axis", ["interpolation", "propagation"])
def test_every_option_of_an_axis_is_a_network_of_its_own(configure: Callable[..., DictConfig], axis: str) -> None:
    targets = []
    for option in options(f"model/{axis}"):
        network = instantiate(configure("train", f"model/{axis}={option}", "model.channels=8").model)
        assert isinstance(network, nn.Module)
        targets.append(repr(getattr(network, axis)))
    assert len(set(targets)) == len(targets)


def test_ablations_name_both_axes_and_their_own_letter(configure: Callable[..., DictConfig]) -> None:
    """The five files read as the paper's Table 2."""
    for letter in options("ablation"):
        text = (CONFIG_DIR / "ablation" / f"{letter}.yaml").read_text()
        assert "/model/interpolation:" in text
        assert "/model/propagation:" in text
        assert configure("train", f"ablation={letter}").variant == letter
    assert options("ablation") == list("abcde")


@pytest.mark.parametrize("option", options("trainer"))
def test_every_trainer_is_a_lightning_trainer(
    configure: Callable[..., DictConfig], option: str, tmp_path: Path
) -> None:
    # Tests run without a GPU; all other settings stay as in the file.
    cpu = [] if option in ("cpu", "base") else ["trainer.accelerator=cpu", "trainer.devices=1"]
    config = configure("train", f"trainer={option}", f"output_dir='{tmp_path}'", *cpu)
    assert isinstance(instantiate(config.trainer, logger=False), pl.Trainer)


def test_csv_logger_is_always_there(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    for option in options("logger"):
        config = configure("train", f"logger={option}", f"output_dir='{tmp_path}'")
        assert isinstance(instantiate(config.logger.csv), CSVLogger)


def test_wandb_is_offline_unless_told_otherwise(configure: Callable[..., DictConfig]) -> None:
    assert configure("train").logger.wandb.offline is True
    assert configure("train", "ablation=c").logger.wandb.group == "c"


@pytest.mark.parametrize("method", options("method"))
def test_every_method_maps_n_frames_to_2n_minus_1(configure: Callable[..., DictConfig], method: str) -> None:
    network = instantiate(configure("evaluate", f"method={method}").method)
    assert network(torch.rand(1, 3, 3, 8, 8)).shape == (1, 5, 3, 32, 32)


@pytest.mark.parametrize("option", options("protocol"))
def test_every_protocol_is_called_as_its_file(configure: Callable[..., DictConfig], option: str) -> None:
    protocol = instantiate(configure("evaluate", f"protocol={option}").protocol)
    assert isinstance(protocol, Protocol)
    assert protocol.name == option


@pytest.mark.parametrize("option", ["videos", "clips", "held"])
def test_clips_to_validate_on_are_those_that_are_scored(configure: Callable[..., DictConfig], option: str) -> None:
    """Scoring with the settings of a training run must not use its training clips."""
    source = configure("evaluate", f"data={option}", "data.root=a", "data.val_root=b").data.test_source
    assert source.get("root", source.get("sets", [source])[0].root) == "b"
    alone = configure("evaluate", f"data={option}", "data.root=a").data.test_source
    assert alone.get("root", alone.get("sets", [alone])[0].root) == "a"


@pytest.mark.parametrize("option", options("data"))
def test_every_data_set_can_be_scored_or_says_what_is_missing(
    configure: Callable[..., DictConfig], option: str, tmp_path: Path
) -> None:
    """Opened on an empty folder, each reports in one line what it expects there."""
    overrides = {"synthetic": [], "table1": ["data.vid4_root", "data.vimeo90k_root"]}.get(option, ["data.root"])
    config = configure("evaluate", f"data={option}", *(f"{name}='{tmp_path}'" for name in overrides))
    if option == "synthetic":
        assert len(instantiate(config.data.test_source)) == 30
        return
    with pytest.raises(Exception, match="Error in call") as caught:
        instantiate(config.data.test_source)
    message, status = explain(caught.value)
    assert status == 1
    assert message is not None
    assert str(tmp_path) in message


def test_thresholds_of_motion_are_those_of_the_generated_scenes(configure: Callable[..., DictConfig]) -> None:
    thresholds = instantiate(configure("evaluate").motion)
    assert thresholds.medium == MOTION_RANGES["medium"][0]
    assert thresholds.fast == MOTION_RANGES["fast"][0]


def test_pack_packs_the_clips_that_training_on_vimeo_reads(configure: Callable[..., DictConfig]) -> None:
    config = configure("pack", "data.root=/nowhere", "output=/nowhere.pack")
    assert config.data.train_source == configure("train", "data=vimeo90k", "data.root=/nowhere").data.train_source
    assert OmegaConf.is_missing(configure("pack"), "output")


def test_demo_recipe_is_small_and_the_experiment_stays_the_papers(
    configure: Callable[..., DictConfig],
) -> None:
    config = configure("train", "experiment=full_bidir", "recipe=demo")
    assert config.variant == "e"
    assert config.model.channels < 64
    assert config.scheduler.period == config.trainer.max_steps < 10_000


def test_slurm_launcher_has_resources_for_one_run() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason='needs pip install ".[slurm]"')
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", ["hydra/launcher=slurm"], return_hydra_config=True)
    assert "SlurmLauncher" in config.hydra.launcher._target_
    assert config.hydra.launcher.gpus_per_node == 1


def test_the_guard_the_saving_and_the_validation_are_as_documented(
    configure: Callable[..., DictConfig],
) -> None:
    config = configure("train")
    callbacks = config.callbacks
    assert (callbacks.non_finite.patience, callbacks.last.every_steps) == (20, 1000)
    assert config.trainer.val_check_interval == 5000


def test_a_short_recipe_begins_slowly_and_at_frames_as_documented(configure: Callable[..., DictConfig]) -> None:
    """Without warm-up it can end in grey frames; without a blended start offsets stay put for most of it."""
    config = configure("train", "recipe=short")
    assert (config.scheduler.warmup, config.blended_start, config.cuda_graphs) == (200, True, True)
    assert (config.loader.batch_size, config.trainer.precision) == (8, "32-true")
    assert config.scheduler.period == config.trainer.max_steps == 100_000
    assert (config.optimizer.lr, config.scheduler.minimum, config.loader.crop) == (4e-4, 1e-7, 32)


def test_a_study_on_two_cores_trains_as_its_documented_results_were_trained(
    configure: Callable[..., DictConfig],
) -> None:
    config = configure("train", "experiment=study_cpu", "data.root=/nowhere")
    assert (config.model.channels, config.model.feature_blocks, config.model.reconstruction_blocks) == (16, 2, 4)
    assert (config.trainer.max_steps, config.loader.batch_size, config.loader.crop) == (800, 8, 16)
    assert (config.optimizer.lr, config.data.train_source.scenes, config.blended_start) == (2e-3, 600, True)
    # `study`, on which it builds, sets these for a GPU.
    assert (config.trainer.accelerator, config.cuda_graphs, config.optimizer.fused) == ("cpu", False, False)


def test_all_gpus_of_a_machine_train_with_ddp(configure: Callable[..., DictConfig]) -> None:
    trainer = configure("train", "trainer=ddp").trainer
    assert (trainer.accelerator, trainer.strategy, trainer.devices) == ("gpu", "ddp", "auto")


def test_no_generated_clip_that_is_scored_was_trained_on(configure: Callable[..., DictConfig]) -> None:
    synthetic = configure("train", "data=synthetic").data
    seeds = [synthetic.train_source.seed, synthetic.val_source.seed, synthetic.test_source.source.seed]
    assert len(set(seeds)) == 3
    # `data=held` trains on generated scenes of seed 0, too.
    assert configure("train", "data=held", "data.root=/nowhere").data.test_source.sets[1].source.seed != 0


def test_all_test_clips_of_vimeo_are_scored_and_a_few_validated_on(configure: Callable[..., DictConfig]) -> None:
    data = configure("train", "data=vimeo90k", "data.root=/nowhere").data
    assert data.test_source.source.clips_per_split is None
    assert data.val_source.clips_per_split == 16


def test_lr_root_reaches_the_scorer_and_the_sources_that_refuse_it(
    configure: Callable[..., DictConfig],
) -> None:
    data = configure("train", "data=clips", "data.root=/hr", "data.lr_root=/lr").data
    assert {data[which].lr_root for which in ("train_source", "val_source", "test_source")} == {"/lr"}


def test_the_dashboard_shows_the_project_and_the_sets_that_runs_log(configure: Callable[..., DictConfig]) -> None:
    dashboard = configure("dashboard")
    assert dashboard.project == configure("train").logger.wandb.project
    roots = ["data.root=/nowhere"]
    scored = {"synthetic": [], "vid4": roots, "vimeo90k": roots}
    assert dashboard.sets == [configure("evaluate", f"data={k}", *v).data.test_source.name for k, v in scored.items()]


@pytest.mark.parametrize(
    ("experiment", "optimizer", "betas"),
    [
        ("superslomo", "Adam", [0.9, 0.999]),
        ("sepconv", "Adamax", [0.9, 0.999]),
        ("dain", "Adamax", [0.9, 0.999]),
        ("rcan", "Adam", [0.9, 0.999]),
        ("rbpn", "Adam", [0.9, 0.999]),
        ("edvr", "Adam", [0.9, 0.99]),
    ],
)
def test_stages_have_the_optimizers_of_their_authors(
    configure: Callable[..., DictConfig], experiment: str, optimizer: str, betas: list[float]
) -> None:
    chosen = configure("train", f"experiment=two_stage/{experiment}").optimizer
    assert (chosen._target_, chosen.betas) == (f"torch.optim.{optimizer}", betas)


@pytest.mark.parametrize(
    ("experiment", "loss", "lr", "batch_size", "crop"),
    [
        ("superslomo", "SuperSloMoLoss", 1e-4, 6, 64),
        ("sepconv", "l1", 1e-3, 16, 64),
        ("dain", "charbonnier", 5e-4, 2, 64),
        ("rcan", "l1", 1e-4, 16, 48),
        ("rbpn", "l1", 1e-4, 8, 64),
        ("edvr", "charbonnier", 4e-4, 32, 64),
        ("end_to_end", "charbonnier", 1e-5, 8, 64),
    ],
)
def test_stages_are_trained_as_their_papers_say(
    configure: Callable[..., DictConfig], experiment: str, loss: str, lr: float, batch_size: int, crop: int
) -> None:
    config = configure("train", f"experiment=two_stage/{experiment}")
    inner = config.objective.loss
    assert (inner.get("loss") or inner)._target_.rpartition(".")[2] == loss
    assert (config.optimizer.lr, config.loader.batch_size, config.loader.crop) == (lr, batch_size, crop)


def test_the_deformable_convolution_is_chosen_on_the_spot_unless_told_otherwise(
    configure: Callable[..., DictConfig],
) -> None:
    assert {configure(name).deformable for name in ("train", "evaluate")} == {"auto"}


def test_the_loader_takes_the_seed_of_the_run(configure: Callable[..., DictConfig]) -> None:
    assert configure("train", "seed=7").loader.seed == 7
