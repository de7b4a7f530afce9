"""What runs log: the names that the dashboard shows, and what distinguishes the runs of a sweep."""

import csv
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import wandb
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import WandbLogger

from conftest import SMALL_RUN, SMALL_SCORING
from stvsr.dashboard import HEALTH, dashboard, workspace
from stvsr.data.clip_sets import ClipInfo
from stvsr.errors import InvalidInput, UserError
from stvsr.evaluate import evaluate
from stvsr.evaluation.costs import Cost
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.results import Results
from stvsr.evaluation.rows import summarise
from stvsr.evaluation.scores import ClipScore, FrameScore
from stvsr.tracking import _remedy, evaluation_metrics, finish, keep_run, track_evaluation
from stvsr.train import train


def logged_columns(folder: Path) -> set[str]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return set(csv.DictReader(file).fieldnames or ())


def shown_metrics(view: Any, section: str) -> set[str]:
    """The names of metrics in the panels of a section of the written specification."""
    (found,) = (s for s in view["spec"]["section"]["panelBankConfig"]["sections"] if s["name"] == section)
    return {metric for panel in found["panels"] for metric in panel["config"]["metrics"]}


@pytest.fixture
def specification(configure: Callable[..., DictConfig], tmp_path: Path) -> Any:
    path = dashboard(configure("dashboard", f"output_dir='{tmp_path}'", "sets=[synthetic]"))
    return json.loads(Path(path).read_text())


def test_dashboard_shows_what_training_really_logs(
    small_run: Callable[..., DictConfig], tmp_path: Path, specification: Any
) -> None:
    train(small_run("ablation=b"))
    logged = logged_columns(tmp_path / "run")
    curves = shown_metrics(specification, "Validation per motion split")
    assert {name for name in curves if not name.endswith("/all")} <= logged
    assert {name for name in logged if name.startswith("val/")} <= curves
    assert shown_metrics(specification, "Training") == set(HEALTH) <= logged


def test_clips_of_unknown_motion_are_the_split_all_in_the_dashboard_too(specification: Any) -> None:
    assert {"val/psnr/all", "val/ssim/all"} <= shown_metrics(specification, "Validation per motion split")


def test_dashboard_shows_what_an_evaluation_really_logs(
    configure: Callable[..., DictConfig], tmp_path: Path, specification: Any
) -> None:
    output = tmp_path / "scored"
    evaluate(configure("evaluate", "method=bicubic_blend", *SMALL_SCORING, "logger=csv", f"output_dir='{output}'"))
    logged = logged_columns(output)
    assert shown_metrics(specification, "Scores") <= logged
    assert {"test/synthetic/psnr_given/slow", "test/synthetic/ssim_synthesised/all"} <= logged


def test_further_metrics_are_logged_as_psnr_is() -> None:
    measured = {"psnr_y": 30.0, "ssim_y": 0.9, "psnr_rgb": 29.0, "lpips": 0.1}
    frames = [FrameScore(number, number % 2 == 0, measured, 1.0) for number in range(7)]
    clip = ClipScore(ClipInfo("Vid4", "city", 7, 0, None), "slow", 1.0, frames, {}, "", None)
    protocol = Protocol("paper", True, False)
    metrics = evaluation_metrics(
        Results("ours", protocol, Cost(), summarise([clip], protocol), settings={}, seconds={})
    )
    assert metrics["test/Vid4/lpips/all"] == metrics["test/Vid4/lpips_given/slow"] == pytest.approx(0.1)
    assert metrics["test/Vid4/psnr_rgb_synthesised/all"] == pytest.approx(29.0)
    assert not any("frames" in name.split("/")[2:] for name in metrics)
    assert {name.split("/")[2].split("_")[0] for name in metrics} == {"psnr", "ssim", "lpips"}


def test_a_logger_that_is_null_is_left_out_after_an_evaluation(
    configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Otherwise it would fail only after everything is scored."""
    protocol = Protocol("paper", True, False)
    results = Results("ours", protocol, Cost(), rows=[], settings={}, seconds={})
    track_evaluation(configure("evaluate", "logger.wandb=null", f"output_dir='{tmp_path}'"), results)
    assert [path.name for path in tmp_path.iterdir()] == ["csv"]


def test_runs_group_by_ablation_in_the_table_and_the_panels(specification: Any) -> None:
    text = json.dumps(specification)
    assert '"name": "group"' in text
    assert '"useRunsTableGroupingInPanels": true' in text
    assert specification["entity"] == "stvsr"


@pytest.mark.parametrize("variant", list("abcde"))
def test_a_sweeps_runs_are_grouped_named_and_tagged_by_their_ablation(
    configure: Callable[..., DictConfig], variant: str
) -> None:
    logger = configure("train", *SMALL_RUN, f"ablation={variant}", "logger=wandb", "seed=7").logger.wandb
    assert (logger.group, logger.name, list(logger.tags), logger.job_type) == (
        *(variant, f"{variant}-seed7", [variant], "train"),
    )


def test_evaluations_join_the_group_of_their_ablation(configure: Callable[..., DictConfig]) -> None:
    logger = configure("evaluate", "method=bicubic_blend", "variant=c").logger.wandb
    assert (logger.group, logger.job_type) == ("c", "evaluate")


def test_a_training_that_goes_on_in_its_folder_stays_one_run_online(
    configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    def known(*overrides: str, folder: str = "one", anew: bool = False) -> str | None:
        config = configure("train", "logger=wandb", f"output_dir='{tmp_path / folder}'", *overrides)
        (tmp_path / folder).mkdir(exist_ok=True)
        keep_run(config, anew=anew)
        found: str | None = config.logger.wandb.get("id")
        return found

    online = "logger.wandb.offline=false"
    first = known(online)
    assert first
    assert known(online) == first
    assert known(online, folder="other") not in (None, first)
    assert known(online, "+logger.wandb.id=mine") == "mine"
    assert known(online, anew=True) not in (None, first), "two trainings would be one curve"
    assert known() is None


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_failed_is_marked_so_on_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: bool) -> None:
    codes: list[int] = []
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    with suppress(ZeroDivisionError):
        try:
            1 / (0 if fails else 1)
        finally:
            finish([WandbLogger(save_dir=tmp_path, offline=True)])
    assert codes == [int(fails)]


def test_a_training_sends_the_pictures_that_the_dashboard_shows_and_goes_on_where_wandbs_process_ends(
    configure: Callable[..., DictConfig],
    small_run: Callable[..., DictConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    specification: Any,
) -> None:
    """A cluster's SIGTERM ends W&B's process before the run's, which has yet to validate and save."""

    def lost(*arguments: object, **options: object) -> None:
        calls.append(0)
        raise ConnectionResetError("Connection lost")

    def log_image(logger: object, key: str, images: list[str], step: int) -> None:
        sent.append((key, step))

    calls: list[int] = []
    sent: list[tuple[str, int]] = []
    end = wandb.finish
    monkeypatch.setattr(WandbLogger, "log_metrics", lost)
    monkeypatch.setattr(WandbLogger, "log_image", log_image)
    # Drawing is tested elsewhere.
    monkeypatch.setattr("stvsr.training.monitors.comparison_figure", lambda **what: None)
    monkeypatch.setattr("stvsr.training.monitors.save_figure", lambda figure, path: None)
    monkeypatch.setattr(wandb, "finish", lambda exit_code: (end(exit_code), lost()))
    monkeypatch.setenv("WANDB_SILENT", "true")
    clips = configure("train").callbacks.pictures.clips
    pictures = [f"callbacks.pictures.clips={clips}", f"data.val_source.clips={clips + 1}"]
    with pytest.warns(UserWarning, match=r"W&B has ended \(Connection lost\); the run continues") as told:
        train(small_run("logger=wandb", "trainer.max_steps=2", "trainer.val_check_interval=2", *pictures))
    assert len([warning for warning in told if "W&B has ended" in str(warning.message)]) == 1
    assert any("W&B could not end the run" in str(warning.message) for warning in told)
    assert len(calls) == 2, "of the log it is asked once"

    with (tmp_path / "run" / "csv" / "metrics.csv").open(newline="") as file:
        (validated,) = (int(row["step"]) for row in csv.DictReader(file) if row["val/psnr/mean"])
    (found,) = (s for s in specification["spec"]["section"]["panelBankConfig"]["sections"] if s["name"] == "Pictures")
    keys = found["panels"][0]["config"]["mediaKeys"]
    assert sent == [(key, validated) for key in keys], "at the steps of the scores"


def test_an_evaluation_makes_a_run_of_its_own_on_wandb(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    output = tmp_path / "scored"
    evaluate(
        configure("evaluate", "method=bicubic_blend", *SMALL_SCORING, f"output_dir='{output}'", f"name={'x' * 80}")
    )
    assert wandb.run is None
    assert len(list((output / "wandb").glob("offline-run-*"))) == 1


def test_what_wandb_does_not_take_is_one_line(
    configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise ValueError("permission\ndenied")

    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", refuse)
    config = configure("dashboard", "online=true", "entity=me", f"output_dir='{tmp_path}'")
    with pytest.raises(UserError, match=r"W&B rejected the dashboard of me/stvsr"):
        dashboard(config)


@pytest.mark.parametrize("setting", ["logger.wandb.tags=[" + 70 * "x" + "]", "logger.wandb.project=a/b"])
def test_settings_that_wandb_refuses_are_one_line_without_a_word_of_accounts(
    small_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(UserError, match=r"W&B could not start a run \(.*\); choose other W&B settings, or logger=csv"):
        train(small_run("logger=wandb", setting))


def test_a_user_without_a_home_folder_is_told_of_the_other_logger(
    small_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: object) -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(
        UserError, match=r"W&B could not start a run \(Could not .*\); choose other W&B settings, or logger=csv"
    ):
        train(small_run("logger=wandb"))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (TypeError("unexpected keyword argument 'colour'"), "remove that setting of logger.wandb"),
        (ValueError("run 1a2b was deleted"), f"remove {Path('run/wandb_run.txt')}, and a new run will be started"),
    ],
)
def test_a_setting_or_a_run_that_wandb_does_not_have_is_said_with_its_remedy(error: Exception, remedy: str) -> None:
    config = OmegaConf.create({"output_dir": "run", "logger": {"wandb": {"offline": False}}})
    assert _remedy(error, config) == remedy


@pytest.mark.parametrize("setting", ["project=null", "entity=''"])
def test_a_dashboard_of_nobody_is_refused(configure: Callable[..., DictConfig], setting: str) -> None:
    with pytest.raises(InvalidInput, match="; expected its name on W&B"):
        dashboard(configure("dashboard", setting))


def test_an_account_that_is_not_there_is_one_line_and_the_scores_are_kept(
    configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    online = ["logger.wandb.offline=false", f"output_dir='{tmp_path}'"]
    config = configure("evaluate", "method=bicubic_blend", *SMALL_SCORING, *online)
    with pytest.raises(UserError, match=r"W&B could not start a run \(No API key configured\.\); run `wandb login`"):
        evaluate(config)
    assert (tmp_path / "results.json").is_file()


def test_a_list_without_brackets_is_not_taken_for_its_letters(configure: Callable[..., DictConfig]) -> None:
    with pytest.raises(InvalidInput, match=r"sets=Vid4; expected a list: sets=\[Vid4\]"):
        dashboard(configure("dashboard", "sets=Vid4"))


def test_workspace_is_saved_online_when_asked(
    configure: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", lambda self: saved.append(self.name))
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.url", "the address")
    assert dashboard(configure("dashboard", "online=true", "entity=me")) == "the address"
    assert saved == ["Ablations"]


def test_every_set_has_its_bars() -> None:
    view = workspace(entity="me", project="p", sets=["A", "B"])
    (scores,) = (section for section in view.sections if section.name == "Scores")
    assert [panel.title for panel in scores.panels][:2] == ["A: PSNR, slow", "A: PSNR, medium"]
    assert len(scores.panels) == 2 * 2 * 4
