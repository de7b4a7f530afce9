"""The study trains and scores what is missing, and nothing twice; its report has every run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from conftest import SMALL_NETWORK, moving_frames, write_video
from stvsr.study import study

TINY = [
    "experiment=study_cpu",
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

FEW_CLIPS = ["data.test_source.sets.1.source.clips=3", "pictures=0", "workers=0"]


@pytest.fixture
def config(configure: Callable[..., DictConfig], tmp_path: Path) -> Callable[[list[str]], DictConfig]:
    for seed, name in enumerate(("train", "val")):
        write_video(tmp_path / name / "a.mp4", moving_frames(8, (48, 64), seed=seed))

    def make(ablations: list[str]) -> DictConfig:
        made = configure("study", f"root='{tmp_path}/train'", f"val_root='{tmp_path}/val'", "seeds=[1]")
        made.update(ablations=ablations, training=TINY, scoring=FEW_CLIPS, output_dir=str(tmp_path / "study"))
        return made

    return make


def test_a_study_goes_on_where_it_was_stopped_and_reports_every_run(
    config: Callable[[list[str]], DictConfig], tmp_path: Path
) -> None:
    study(config(["b"]))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("b-1/**/*.*") if path.is_file()}
    assert {"last.ckpt", "results.json", "metrics.csv"} <= {path.name for path in before}

    report = study(config(["a", "b"])).read_text(encoding="utf-8")
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what was finished was done again"
    for said in (
        "| (a) | all |",
        "| (b) | synthesised |",
        "| bicubic_blend | given |",
        "| (b) > (a) |",
        "| (a), seed 1 |",
    ):
        assert said in report
    assert "2 steps of 1 crops of 8x8 LR pixels" in report
    for picture in ("curves.png", "medium.png", "fast.png"):
        assert f"({picture})" in report
        assert (tmp_path / "study" / picture).read_bytes().startswith(b"\x89PNG")


def test_longer_training_continues_a_run_and_scores_it_again(
    config: Callable[[list[str]], DictConfig], tmp_path: Path
) -> None:
    study(config(["a"]))
    longer = config(["a"])
    longer.training = [*TINY, "trainer.max_steps=3"]
    report = study(longer).read_text(encoding="utf-8")
    assert "| (a), seed 1 | " in report
    assert "| 3 | " in report
