"""The demo reports honestly how the network compares, and leaves the files it names."""

import sys
from pathlib import Path

import pytest

from conftest import SMALL_RUN
from stvsr.demo import as_comparison, demo, main
from stvsr.errors import Interrupted, InvalidInput
from stvsr.evaluation.rows import Row


def row(psnr: float, motion: str = "slow") -> Row:
    return Row("synthetic", motion, 10, 70, 0, 0, "", {"psnr_y": psnr, "ssim_y": 0.7})


def test_a_network_that_is_behind_is_said_to_be_behind() -> None:
    text = as_comparison([row(26.0), row(19.0, "fast")], [row(25.0), row(20.0, "fast")])
    assert "does not beat bicubic + blending on: fast." in text
    assert "26.00" in text
    assert "20.00" in text


def test_a_network_that_is_ahead_is_not_called_a_result() -> None:
    assert "not a result" in as_comparison([row(26.0)], [row(25.0)])


def test_demo_trains_scores_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [o for o in SMALL_RUN if "max_steps" not in o and "interval" not in o]
    demo(tmp_path, [*small, "ablation=a", "trainer.max_steps=2", "trainer.val_check_interval=2"], test_clips=3)
    said = capsys.readouterr().out
    for name in (
        "comparison.png",
        "train/checkpoints/last.ckpt",
        "network/results.json",
        "bicubic_blend/clips.csv",
        "report.html",
    ):
        assert (tmp_path / name).is_file()
    assert str(tmp_path / "comparison.png") in said
    assert "does not beat" in said


@pytest.mark.parametrize(
    ("stop", "done"),
    [(Interrupted("stopped after 3 of 30 windows", "…"), "after 3 of 30 windows"), (KeyboardInterrupt(), "")],
)
def test_a_demo_that_is_stopped_says_the_command_that_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: BaseException, done: str
) -> None:
    """The demo lacks the options of its parts, and its folder is named after the time unless given."""

    def stopped(folder: Path, overrides: list[str]) -> None:
        raise stop

    monkeypatch.setattr("stvsr.demo.demo", stopped)
    monkeypatch.setattr(sys, "argv", ["demo", "--output", "my demo", "trainer.max_steps=2"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    command = f"python -m stvsr.demo --output '{tmp_path}/my demo' trainer.max_steps=2"
    assert capsys.readouterr().err == f"{f'stopped {done}'.strip()}; to continue: {command}\n"


def test_a_demo_names_its_own_option_where_its_training_would_name_a_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(folder: Path, overrides: list[str]) -> None:
        raise InvalidInput("run: a finished run, which cannot change to seed=3; choose another output_dir")

    monkeypatch.setattr("stvsr.demo.demo", refused)
    monkeypatch.setattr(sys, "argv", ["demo", "--output", "run"])
    with pytest.raises(SystemExit):
        main()
    assert "cannot change to seed=3; choose another --output\n" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["output_dir=mine", "++output_dir=mine"])
def test_another_folder_among_the_settings_of_a_demo_is_refused(tmp_path: Path, setting: str) -> None:
    """That folder would stay empty."""
    with pytest.raises(
        InvalidInput, match=r"output_dir=mine: expected training settings .* the folder with --output DIR"
    ):
        demo(tmp_path, [setting])
