"""The study trains and scores what is missing, nothing twice, and reports every run."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from conftest import SMALL_NETWORK, moving_frames, write_video
from stvsr.checkpoint import SETTINGS_KEY
from stvsr.errors import Interrupted, TrainingDiverged
from stvsr.evaluation.ablations import TrainedRun
from stvsr.files import write_text
from stvsr.study import Trainings, checkpoint_of, draw, main
from stvsr.train import train

TINY = [
    *SMALL_NETWORK,
    "trainer.max_steps=2",
    "trainer.val_check_interval=1",
    "trainer.log_every_n_steps=1",
    "loader.batch_size=1",
    "loader.crop=8",
    "data.train_source.scenes=1",
    "data.train_source.side=48",
    "callbacks.pictures.clips=0",
    "logger=csv",
]

CLIPS = "data.test_source.sets.1.source"

# The configured sizes would take most of the time of these tests.
SMALL_CLIPS = [f"{CLIPS}.height=32", f"{CLIPS}.width=48"]


def could_be_drawn(config: DictConfig, trainings: Trainings, runs: list[TrainedRun]) -> None:
    """Checks that all is there that is drawn. Drawing it takes longer than the rest of a study."""
    assert [(run.seed, run.ablation) for run in runs] == list(trainings)
    assert all(checkpoint_of(training).is_file() for training in trainings.values())


def studied(
    videos: Path,
    folder: Path,
    ablations: str,
    *training: str,
    train: bool | str = True,
    root: Path | None = None,
    val_root: Path | None = None,
    clips: int = 3,
    draws: bool = False,
    scoring: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
) -> str:
    """Runs the command on the videos below `videos`, with output in `folder`; gives the report."""
    settings = {
        "training": [*TINY, *training],
        "scoring": [*SMALL_CLIPS, f"{CLIPS}.clips={clips}", "pictures=0", "workers=0", *scoring],
    }
    lists = [f"{name}=[{','.join(map(repr, values))}]" for name, values in settings.items()]
    places = {"root": root or videos / "train", "val_root": val_root or videos / "val", "output_dir": folder}
    command = [
        "stvsr.study",
        "runs=study_cpu",
        "seeds=[1]",
        f"ablations={ablations}",
        f"train={train}",
        *lists,
        *(f"{name}='{place}'" for name, place in places.items()),
        *flags,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        if not draws:
            patch.setattr("stvsr.study.draw", could_be_drawn)
        main()
    return (folder / "study.md").read_text(encoding="utf-8")


def write_videos(folder: Path) -> None:
    """Writes a small video to train on and one to score."""
    for seed, name in enumerate(("train", "val")):
        write_video(folder / name / "a.mp4", moving_frames(8, (48, 64), seed=seed))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of all studies here, except one that changes its videos."""
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder)
    return folder


@pytest.fixture(scope="module")
def study_of_a(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of (a), for tests to copy."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    studied(videos, folder, "[a]")
    return folder


@pytest.fixture
def run(videos: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs the command in `study`; gives the report."""
    return partial(studied, videos, tmp_path / "study")


@pytest.fixture
def finished(study_of_a: Path, tmp_path: Path) -> str:
    """Copies a finished study of (a) to `study`; gives its report."""
    # copytree keeps the times of files, which tell what was made from what.
    shutil.copytree(study_of_a, tmp_path / "study")
    return (tmp_path / "study" / "study.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("finished")
def test_a_study_goes_on_where_it_was_stopped_and_reports_every_run(run: Callable[..., str], tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("a-1/**/*.*") if path.is_file()}
    # Scores found up to date give this file a new time; files written with it keep theirs.
    del before[tmp_path / "study" / "scores" / "a-1" / "results.json"]
    assert {"last.ckpt", "results.csv", "metrics.csv"} <= {path.name for path in before}

    report = run("[a,b]", draws=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what was finished was done again"
    assert "| (a) | all |" in report
    assert "| (b) | synthesised |" in report
    assert "| bicubic_blend | given |" in report
    assert "| (b) > (a) | videos | all | synthesised |" in report
    assert "| (a), seed 1 |" in report
    assert "2 steps of 1 crops of 8x8 LR pixels" in report
    for picture in ("study/curves.png", "study/medium.png", "study/fast.png"):
        assert f"({picture})" in report
        assert (tmp_path / "study" / picture).read_bytes().startswith(b"\x89PNG")


def test_a_report_of_what_is_finished_trains_nothing(run: Callable[..., str], study_of_a: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run("[a,b]", train=False)
    shutil.copytree(study_of_a, tmp_path / "study", dirs_exist_ok=True)
    report = run("[a,b]", train=False)
    assert "| (a), seed 1 |" in report
    assert "(b)" not in report.split("##", 1)[1]
    assert not (tmp_path / "study" / "train" / "b-1").exists()


def test_a_report_needs_no_videos_but_scores_of_what_is_there_all_made_alike(
    run: Callable[..., str], finished: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The videos may be on another machine, or have been removed."""
    reported = partial(run, "[a]", train=False, val_root=tmp_path / "nowhere")
    assert reported() == finished
    assert "nowhere: no such folder; using the scores in" in capsys.readouterr().err
    scores = tmp_path / "study" / "scores"
    for name, key, says in (
        ("a-1", "checkpoint", "a-1: scored with other settings: checkpoint; give val_root=DIR"),
        ("a-1", "extras", "a-1: scored with other settings: extras; give val_root=DIR"),
        ("bicubic_blend", "protocol", "bicubic_blend: scored with other settings: protocol; give val_root=DIR"),
        (
            "bicubic_blend",
            "files",
            "(a), seed 1 and bicubic_blend were scored on different clips; give the same command again, "
            "with val_root=DIR",
        ),
    ):
        before = (scores / name / "results.json").read_text()
        results = json.loads(before)
        results["made_with"][key] = "another"
        (scores / name / "results.json").write_text(json.dumps(results))
        with pytest.raises(SystemExit):
            reported()
        assert says in capsys.readouterr().err
        (scores / name / "results.json").write_text(before)
    with pytest.raises(SystemExit):
        reported(clips=4, scoring=("motion.medium=2",))
    assert "bicubic_blend: scored with other settings: thresholds, data; give" in capsys.readouterr().err


@pytest.mark.usefixtures("finished")
def test_longer_training_continues_a_run_and_scores_it_again(run: Callable[..., str], tmp_path: Path) -> None:
    scored = tmp_path / "study" / "scores" / "a-1" / "results.csv"
    for steps in (3, 4):
        before = scored.stat().st_mtime_ns
        stopped = scored.parent / "progress" / "job.json"
        if steps == 4:
            # As if it had been stopped while it scored the shorter run.
            stopped.parent.mkdir()
            write_text(stopped, '{"checkpoint": "of three steps"}')
        report = run("[a]", f"trainer.max_steps={steps}")
        assert not stopped.exists()
        (row,) = (line for line in report.splitlines() if line.startswith("| (a), seed 1 |"))
        assert row.split(" | ")[2] == str(steps)
        assert scored.stat().st_mtime_ns > before


def test_too_few_clips_for_the_pictures_are_refused_before_anything_is_trained(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        run("[a]", clips=2)
    assert "scoring: 2 generated clip(s); expected at least 3" in capsys.readouterr().err
    assert not (tmp_path / "study" / "train").exists()


def test_clips_that_have_changed_are_scored_again_but_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mean of old and new scores would be meaningless."""
    # In separate folders, because their content is changed.
    write_videos(tmp_path)
    run = partial(studied, tmp_path, tmp_path / "study")
    run("[a]")
    scores = [tmp_path / "study" / "scores" / name / "results.csv" for name in ("bicubic_blend", "a-1")]
    before = [path.stat().st_mtime_ns for path in scores]
    write_video(tmp_path / "val" / "b.mp4", moving_frames(8, (48, 64), seed=5))
    run("[a]")
    assert all(path.stat().st_mtime_ns > time for path, time in zip(scores, before, strict=True))

    # Videos that have moved are still the same.
    (tmp_path / "train").rename(tmp_path / "moved")
    run("[a,b]", root=tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "train")

    # Other training videos make another study, as a seed draws other clips from them; finished runs do not need them.
    write_video(tmp_path / "train" / "b.mp4", moving_frames(8, (48, 64), seed=5))
    run("[a]")
    with pytest.raises(SystemExit):
        run("[c]")
    assert "has different videos from those of earlier runs" in capsys.readouterr().err


def test_a_row_of_a_log_that_was_cut_off_does_not_count(run: Callable[..., str], finished: str, tmp_path: Path) -> None:
    with (tmp_path / "study" / "train" / "a-1" / "csv" / "metrics.csv").open("a") as log:
        log.write("0,")
    assert run("[a]") == finished


def test_a_study_that_is_stopped_says_how_to_continue_all_of_it(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(config: DictConfig) -> None:
        raise Interrupted("stopped after step 3", "continue with resume=last.ckpt")

    monkeypatch.setattr("stvsr.study.train", stopped)
    with pytest.raises(SystemExit) as stop:
        run("[a]")
    assert stop.value.code == 130
    assert "stopped after step 3; give the same command again to continue the study\n" in capsys.readouterr().err


def test_a_run_that_failed_before_it_began_does_not_stand_in_the_way(run: Callable[..., str]) -> None:
    with pytest.raises(SystemExit):
        run("[a]", "optimizer.lr=0")
    assert "| (a), seed 1 |" in run("[a]")


def test_a_run_that_diverges_is_left_out_and_said(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would diverge at every start of the study, and the other runs are as valid without it."""

    def diverging(config: DictConfig) -> dict[str, float]:
        if config.variant == "b":
            raise TrainingDiverged("20 steps in a row")
        return train(config)

    monkeypatch.setattr("stvsr.study.train", diverging)
    report = run("[b,a]")
    assert "Left out: (b), seed 1 (20 steps in a row)." in report
    assert "| (a), seed 1 |" in report
    assert "| (b), seed 1 |" not in report
    assert "left out: 20 steps in a row" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("[b]")
    assert "no run could be finished; choose another output_dir and a lower rate" in capsys.readouterr().err


def test_a_run_that_cannot_begin_is_refused_before_the_others_are_trained(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A custom recurrence could fail hours after the first run, when the remedy would already be another study."""
    (tmp_path / "ablation").mkdir()
    own = [
        "defaults: [override /model/propagation: none]",
        "variant: f",
        "model: {propagation: {_target_: torch.nn.Identity}}",
    ]
    (tmp_path / "ablation" / "f.yaml").write_text("\n".join(["# @package _global_", *own]), encoding="utf-8")
    began = list[str]()

    def begin(config: DictConfig) -> None:
        began.append(config.variant)
        raise Interrupted("stopped", None)

    monkeypatch.setattr("stvsr.study.train", begin)
    for settings, expected in (((), []), (("blended_start=false",), ["a"])):
        with pytest.raises(SystemExit):
            run("[a,f]", *settings, flags=("--config-dir", str(tmp_path)))
        assert began == expected
    assert "error: (f), in the training=[…] settings: Identity: carry_through" in capsys.readouterr().err


def test_a_report_says_no_settings_that_are_not_those_of_its_runs(
    run: Callable[..., str], finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ", seeds 1; scored on " in finished
    with pytest.raises(SystemExit):
        run("[a]", "optimizer.lr=0.5", train=False)
    assert "was trained with another optimizer.lr; choose another output_dir" in capsys.readouterr().err


@pytest.mark.usefixtures("finished")
def test_results_that_cannot_be_read_are_made_again_and_memory_may_be_saved_on_the_way(
    run: Callable[..., str], tmp_path: Path
) -> None:
    scores = tmp_path / "study" / "scores" / "bicubic_blend" / "results.json"
    scores.write_text("{}", encoding="utf-8")
    assert "| bicubic_blend |" in run("[a]", "model.checkpointing=true", train=False)
    assert len(scores.read_text(encoding="utf-8")) > 2


@pytest.mark.parametrize(
    ("ablations", "says"),
    [("a", "ablations=a; expected a list: ablations=[a]"), ("[]", "ablations=[]; expected at least one")],
)
def test_a_list_without_brackets_or_with_nothing_in_it_is_refused(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str], ablations: str, says: str
) -> None:
    with pytest.raises(SystemExit):
        run(ablations)
    assert says in capsys.readouterr().err


def test_runs_are_made_seed_by_seed_and_networks_of_the_first_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that is stopped early then has something to compare."""
    wanted, shown = list[tuple[int, str]](), list[dict[str, Path]]()

    def training_config(config: DictConfig, seed: int, ablation: str) -> DictConfig:
        return OmegaConf.create({"callbacks": {"last": {"path": f"{ablation}-{seed}"}}})

    def train_missing(config: DictConfig, trainings: Trainings) -> None:
        wanted.extend(trainings)
        draw(config, trainings, [])
        raise Interrupted("stopped", None)

    for stand_in in (training_config, train_missing):
        monkeypatch.setattr(f"stvsr.study.{stand_in.__name__}", stand_in)
    for name in ("check_scoring", "check_settings", "curve_figure", "save_figure"):
        monkeypatch.setattr(f"stvsr.study.{name}", lambda *arguments: None)
    monkeypatch.setattr("stvsr.study.load_network", lambda path: path)
    monkeypatch.setattr("stvsr.study.generated_clips", lambda config: range(3))
    monkeypatch.setattr("stvsr.study.show_clip", lambda networks, clip, path: shown.append(networks))
    monkeypatch.setattr(sys, "argv", ["stvsr.study", "seeds=[2,1]", "ablations=[a,b]", "root=r", "val_root=v"])
    with pytest.raises(SystemExit):
        main()
    assert wanted == [(2, "a"), (2, "b"), (1, "a"), (1, "b")]
    assert [list(networks.items()) for networks in shown] == [[("(a)", Path("a-2")), ("(b)", Path("b-2"))]] * 2


@pytest.mark.parametrize("name", ["root", "val_root"])
def test_null_in_place_of_a_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    places = {"root": "r", "val_root": "v", name: "null"}
    monkeypatch.setattr(sys, "argv", ["stvsr.study", *(f"{key}={place}" for key, place in places.items())])
    with pytest.raises(SystemExit):
        main()
    assert f"error: {name}=null; expected a folder of videos: {name}=DIR" in capsys.readouterr().err


def test_a_study_of_an_optimizer_with_its_own_rate_is_reported(run: Callable[..., str]) -> None:
    assert "LR pixels, 32-true, begun with blended frames, seeds 1;" in run("[a]", "~optimizer.lr")


def test_no_is_not_taken_for_true(run: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("[a]", train="no")
    assert "train=no; expected true or false" in capsys.readouterr().err


@pytest.mark.usefixtures("finished")
def test_runs_of_other_settings_are_not_taken_for_those_asked_for(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    for setting, says in (
        ("optimizer.lr=0.5", "was trained with another optimizer.lr; choose another output_dir"),
        # A schedule of another length is allowed only with as many steps.
        ("scheduler.period=100", "was trained with another scheduler.period; choose another output_dir"),
        ("model.channels=16", "a checkpoint of another network: its channels is 8"),
        (
            "trainer.max_steps=1",
            "has 2 steps, more than trainer.max_steps=1; expected at least 2, or, to start anew, another",
        ),
    ):
        with pytest.raises(SystemExit):
            run("[a]", setting)
        assert says in capsys.readouterr().err


@pytest.mark.usefixtures("finished")
def test_runs_of_a_schedule_of_their_own_are_not_taken_for_usual_ones(
    run: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a run that is extended may have had another schedule; this one has all its steps already."""
    last = tmp_path / "study" / "train" / "a-1" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content[SETTINGS_KEY]["scheduler.period"] = 100
    torch.save(content, last)
    with pytest.raises(SystemExit):
        run("[a]")
    assert "was trained with another scheduler.period" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["trainer=ddp", "trainer.devices=2", "trainer.devices=[0,1]", "trainer.num_nodes=2"]
)
def test_a_study_on_several_devices_is_refused_before_it_trains(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str
) -> None:
    """Each process would run the whole study, and they would get in each other's way when scoring."""
    with pytest.raises(SystemExit):
        run("[a]", setting)
    assert "expected one device of one machine: omit trainer=ddp and these settings" in capsys.readouterr().err
    assert not (tmp_path / "study" / "train").exists()


@pytest.mark.usefixtures("finished")
def test_a_run_whose_last_validation_was_killed_is_validated_when_the_study_goes_on(
    run: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its curve would lack the end."""
    last = tmp_path / "study" / "train" / "a-1" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["callbacks"]["LastCheckpoint"]["validated"] = 1
    torch.save(content, last)
    run("[a]")
    assert "training (a), seed 1" in capsys.readouterr().out
    assert torch.load(last, weights_only=True)["callbacks"]["LastCheckpoint"]["validated"] == 2
