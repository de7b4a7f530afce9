"""Which run is continued; no run is mistaken for another."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from stvsr.checkpoint import SETTINGS_KEY
from stvsr.errors import InvalidInput
from stvsr.train import train
from stvsr.training.continuation import EarlierRun, checkpoint_to_continue, read_earlier, settings_of

Run = Callable[..., DictConfig]

SHORT = ["trainer.max_steps=2", "trainer.val_check_interval=2"]


def test_a_run_that_began_elsewhere_goes_on_from_where_it_has_come_when_it_is_started_again(
    small_run: Run, tmp_path: Path
) -> None:
    train(small_run("trainer.max_steps=2"))
    resume = f"resume='{tmp_path}/run/checkpoints/last.ckpt'"
    assert checkpoint_to_continue(small_run(resume, folder="other")) == tmp_path / "run/checkpoints/last.ckpt"
    train(small_run("trainer.max_steps=4", resume, folder="other"))
    assert checkpoint_to_continue(small_run(resume, folder="other")) == tmp_path / "other/checkpoints/last.ckpt"
    # An explicit `resume` may go back to an earlier state of the same run.
    best = f"resume='{tmp_path}/other/checkpoints/best.ckpt'"
    assert checkpoint_to_continue(small_run(best, folder="other")) == tmp_path / "other/checkpoints/best.ckpt"


def test_a_run_that_has_come_no_further_does_not_take_the_place_of_the_one_that_is_named(
    small_run: Run, tmp_path: Path
) -> None:
    """Both may be finished, for example: the run that `resume` names is continued."""
    for folder in ("run", "other"):
        (tmp_path / folder / "checkpoints").mkdir(parents=True)
        torch.save({"global_step": 2}, tmp_path / folder / "checkpoints" / "last.ckpt")
    named = tmp_path / "run/checkpoints/last.ckpt"
    assert checkpoint_to_continue(small_run(f"resume='{named}'", folder="other")) == named


def test_a_finished_run_that_is_started_again_is_left_as_it_is(small_run: Run, tmp_path: Path) -> None:
    """A sweep may be started again for the sake of its other jobs."""
    train(small_run(*SHORT))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*") if path.is_file()}
    assert tmp_path / "run/csv/metrics.csv" in before
    assert train(small_run(*SHORT)) == {}
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*") if path.is_file()} == before


OTHER_SETTINGS = {
    "seed=3": "seed=3, which was 2020; choose another output_dir",
    "optimizer.lr=0.5": "optimizer.lr=0.5, which was ",
    "data.train_source.clips=9": "data.train_source.clips=9, which was ",
    "+objective.loss.epsilon=1": "objective.loss.epsilon=1, which was None",
    "trainer.precision=64-true": "trainer.precision=64-true, which was 32-true",
    "+trainer.gradient_clip_val=10": "trainer.gradient_clip_val=10, which was None",
    "+trainer.gradient_clip_algorithm=value": "trainer.gradient_clip_algorithm=value",
    "blended_start=true": "blended_start=True, which was False",
    "initial_weights=a.ckpt": "initial_weights=a.ckpt, which was None",
    "+callbacks.own={_target_:lab.EMA,decay:0.9}": "callbacks.own._target_=lab.EMA",
}
"""A setting of each kind, with what the error says of it."""


def test_a_finished_run_is_not_taken_for_one_with_other_settings(small_run: Run) -> None:
    """A sweep over other values may be given the folder of an earlier one."""
    train(small_run(*SHORT))
    for setting, says in OTHER_SETTINGS.items():
        with pytest.raises(InvalidInput, match=re.escape(f"a finished run, which cannot change to {says}")):
            train(small_run(*SHORT, setting))


def test_the_remedy_where_a_finished_run_is_named_is_not_to_name_it(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*SHORT))
    last = f"resume='{tmp_path}/run/checkpoints/last.ckpt'"
    with pytest.raises(InvalidInput, match=r"optimizer\.lr=0\.5, which was .*; omit resume, or begin with its weights"):
        train(small_run(*SHORT, last, "optimizer.lr=0.5", folder="other"))


def test_an_unfinished_run_goes_on_with_another_seed_only_where_it_is_named(small_run: Run, tmp_path: Path) -> None:
    train(small_run(*SHORT))
    longer = ["trainer.max_steps=4", "trainer.val_check_interval=4", "seed=3"]
    last = tmp_path / "run/checkpoints/last.ckpt"
    with pytest.raises(InvalidInput, match=r"would be continued with .*seed=3, which was 2020; .* resume="):
        train(small_run(*longer))
    with pytest.warns(UserWarning, match=r"continuing with .*seed=3, which was 2020"):
        train(small_run(*longer, f"resume='{last}'"))
    assert torch.load(last, weights_only=True)["global_step"] == 4


def test_other_settings_of_a_run_that_is_continued_are_told(small_run: Run) -> None:
    train(small_run("trainer.max_steps=1"))
    schedule = ["scheduler.minimum=1e-6", "scheduler.period=9"]
    says = (
        "continuing with loader.batch_size=4, which was 2, loader.crop=4, which was 8, optimizer.lr=0.5, which was "
        "[^,]*, scheduler.minimum=1e-06, which was [^,]* and 1 more$"
    )
    with pytest.warns(UserWarning, match=says):
        train(small_run("trainer.max_steps=2", "loader.batch_size=4", "loader.crop=4", "optimizer.lr=0.5", *schedule))


def test_settings_of_the_start_alone_are_of_no_matter_to_a_run_that_is_continued(
    small_run: Run, recwarn: pytest.WarningsRecorder
) -> None:
    train(small_run("trainer.max_steps=1"))
    train(small_run("trainer.max_steps=2", "blended_start=true"))
    assert not [warning for warning in recwarn if "continuing with" in str(warning.message)]


def test_a_run_that_began_with_other_weights_of_a_stage_is_another_run() -> None:
    ours, theirs = (settings_of(OmegaConf.create({"weights": {"edvr": name}})) for name in ("a.pth", "b.pth"))
    changed = EarlierRun(Path("last.ckpt"), 1, 1, ours).changed(theirs)
    assert changed == ["weights.edvr"]
    assert EarlierRun(Path("last.ckpt"), 1, 1, {}).changed(theirs) == [], "a checkpoint that tells no settings"


def test_where_a_run_computes_is_no_setting_of_it(small_run: Run) -> None:
    here = ["loader.workers=3", "trainer.accelerator=gpu", "trainer.devices=2", "logger=csv", "cuda_graphs=true"]
    assert settings_of(small_run(*here)) == settings_of(small_run())


def test_a_checkpoint_that_is_named_is_taken_however_its_folder_is_written(small_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for name, steps in (("best", 1), ("last", 2)):
        torch.save({"global_step": steps}, folder / f"{name}.ckpt")
    best = tmp_path / "run" / ".." / "run" / "checkpoints" / "best.ckpt"
    assert checkpoint_to_continue(small_run(f"resume='{best}'")) == best


def test_where_a_run_is_validated_and_scored_is_no_setting_of_it(small_run: Run) -> None:
    others = ["data.val_source.clips=9", "data.test_source.source.clips=9"]
    assert settings_of(small_run(*others)) == settings_of(small_run())


def test_what_an_earlier_version_kept_of_the_data_is_no_change() -> None:
    before = EarlierRun(Path("last.ckpt"), 1, 1, {"seed": 1, "data.test_source.root": "/a"})
    assert before.changed({"seed": 1}) == []
    assert before.changed({"seed": 1, "callbacks.mean.decay": 0.9}) == ["callbacks.mean.decay"]


def test_a_folder_of_data_is_the_same_however_and_from_wherever_it_is_written(
    configure: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(root: object) -> dict[str, object]:
        return settings_of(configure("train", "data=videos", f"data.root={root}"))

    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    earlier = EarlierRun(Path("last.ckpt"), 1, 1, settings("clips"))
    assert earlier.settings["data.train_source.root"] == str(tmp_path / "clips")
    for written in ("./clips/", tmp_path / "clips", "clips/../clips"):
        assert settings(written) == earlier.settings
    assert earlier.moved() == []
    (tmp_path / "clips").rename(tmp_path / "elsewhere")
    assert earlier.moved() == ["data.train_source.root"]
    assert earlier.changed(settings("elsewhere")) == ["data.train_source.root"]


def test_a_folder_that_an_earlier_version_kept_as_it_was_written_is_the_same(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(small_run(*SHORT))
    last = tmp_path / "run/checkpoints/last.ckpt"
    config = small_run()
    content = torch.load(last, weights_only=True)
    content[SETTINGS_KEY]["data.train_source.root"] = "clips"
    torch.save(content, last)
    earlier = read_earlier(last, config)
    assert earlier.settings["data.train_source.root"] == str(tmp_path / "clips")


def test_the_rest_of_a_command_that_was_left_out_is_not_trained_with(small_run: Run, tmp_path: Path) -> None:
    """Otherwise the run would train on the default generated clips and overwrite its checkpoint."""
    train(small_run("trainer.max_steps=1"))
    last = tmp_path / "run/checkpoints/last.ckpt"
    content = torch.load(last, weights_only=True)
    content[SETTINGS_KEY]["data.train_source._target_"] = "stvsr.data.vimeo90k.Vimeo90K"
    torch.save(content, last)
    with pytest.raises(
        InvalidInput, match=r"with data\.train_source\._target_=stvsr\.data\.vimeo90k.* give the whole command again"
    ):
        train(small_run(*SHORT))
