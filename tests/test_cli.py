"""Whatever a user can cause ends in one line, a non-zero exit, and nothing half-written."""

import errno
import shlex
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError
from PIL import Image

from conftest import SMALL_RUN, SMALL_SCORING, Run, moving_frames, write_video
from stvsr import dashboard, evaluate, report, study, train
from stvsr.checkpoint import MODEL_KEY, VARIANT_KEY
from stvsr.cli import one_line_errors
from stvsr.config import CONFIG_DIR
from stvsr.configuration_errors import explain
from stvsr.data.vimeo90k import motion_list
from stvsr.errors import DamagedClip, Interrupted, InvalidInput
from stvsr.evaluation import scoring


def test_help_that_nobody_reads_to_its_end_ends_without_a_traceback() -> None:
    pipe = [f"{shlex.quote(sys.executable)} -m stvsr.report --help | true"]
    done = subprocess.run(["bash", "-c", *pipe], check=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_a_program_without_standard_output_ends_as_with_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons may have none."""
    monkeypatch.setattr(sys, "stdout", None)
    status, error = run(report.main, "runs=[gone]")
    assert (status, error.count("error: gone")) == (1, 1)
    assert "Traceback" not in error


def test_ctrl_c_before_any_work_is_answered_in_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise KeyboardInterrupt
    assert (stop.value.code, capsys.readouterr().err) == (130, "stopped\n")


def test_a_name_that_is_no_text_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(printed, encoding="ascii", errors="strict"))
    with one_line_errors():
        print("ü\udcff.safetensors", flush=True)
    assert printed.getvalue() == b"??.safetensors\n"


COMMENTS = "Comments on all settings: "


def test_help_names_the_file_with_comments_on_all_settings_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stvsr", "--help"])
    with pytest.raises(SystemExit, match="0"):
        train.main()
    (named,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(COMMENTS))
    assert named == f"{COMMENTS}{CONFIG_DIR / 'train.yaml'}"


def test_help_of_every_program_names_its_own_file() -> None:
    files = sorted(CONFIG_DIR.glob("*.yaml"))
    assert [file.stem for file in files] == ["dashboard", "evaluate", "pack", "report", "study", "train"]
    for file in files:
        # Unresolved: only a running program knows the folder; the test above runs one.
        footer = OmegaConf.to_container(OmegaConf.load(file))["hydra"]["help"]["footer"]  # type: ignore[call-overload,index]
        assert footer.splitlines()[-1] == f"{COMMENTS}${{hydra.runtime.config_sources[1].path}}/{file.name}"


def test_help_of_a_program_with_settings_alone_offers_no_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report has no ablation to choose."""
    monkeypatch.setattr(sys, "argv", ["stvsr", "--help"])
    for program in (report, dashboard, study):
        with pytest.raises(SystemExit, match="0"):
            program.main()
        shown = capsys.readouterr().out
        assert "output_dir: outputs/" in shown
        assert "For example:\n  python -m stvsr." in shown
        assert "ablation: a, b" not in shown


BAD_EVALUATE = {
    "no-checkpoint-and-no-method": ([], "exactly one of checkpoint=FILE"),
    "folder-for-a-checkpoint": (
        ["checkpoint=."],
        "checkpoint .: is a folder; expected a file, such as a run's checkpoints/last",
    ),
    "missing-checkpoint": (["checkpoint=gone.ckpt"], "checkpoint gone.ckpt: no such file; check the name"),
    "not-a-checkpoint": (["checkpoint=text.ckpt"], "text.ckpt: not a checkpoint"),
    "absent-device": (["method=bicubic_blend", "device=cuda:99"], "device=cuda:99: not usable here ("),
    "no-root": (["method=bicubic_blend", "data=vimeo90k"], "data.root is not given"),
    "batch-of-0": (
        ["method=bicubic_blend", "batch_size=0"],
        "batch_size=0; expected a whole number, 1 or more",
    ),
    "processes-on-one-gpu": (
        ["method=bicubic_blend", "processes=2", "device=cuda:0"],
        "processes=2 on device=cuda:0; expected device=cuda",
    ),
    "predictions-called-2020": (
        ["predictions=2020"],
        "predictions=2020: read as int; if that is a name, write predictions=./NAME",
    ),
    "off-is-not-false": (["method=bicubic_blend", "save_frames=off"], "save_frames=off; expected true or false"),
    "no-such-extra": (["method=bicubic_blend", "extras=[beauty]"], "extras=[beauty]: no such metric"),
    "extras-without-brackets": (["method=bicubic_blend", "extras=lpips"], "extras=lpips; expected a list"),
    "no-motion-cache": (["method=bicubic_blend", "motion_cache=null"], "motion_cache=null; expected a file"),
    "thresholds-the-wrong-way-round": (
        ["method=bicubic_blend", "motion.fast=1"],
        "motion.medium=1.5, motion.fast=1; expected 0 < medium < fast, pixels per frame",
    ),
    "no-thresholds": (["method=bicubic_blend", "motion=null"], "motion=null; expected thresholds: omit it"),
    "no-clips": (["method=bicubic_blend", "data.test_source=null"], "data.test_source=null: no clips to score; omit"),
    "no-predictions": (["predictions=nowhere"], "predictions=nowhere: no such folder"),
    "predictions-to-save": (
        ["predictions=out", "save_frames=true"],
        "save_frames=true with predictions: those are already saved",
    ),
    "no-clip-folder": (
        ["method=bicubic_blend", "data=clips", "data.root=nowhere"],
        "nowhere: no such folder",
    ),
    "two-stages-without-weights": (
        ["model=two_stage", "frame_upscaler=rcan"],
        "RCAN has no weights: give weights.rcan=FILE, RCAN_BIX4.pt of github.com/yulunzhang/RCAN",
    ),
    "stage-file-that-is-missing": (
        ["model=two_stage", "frame_interpolator=sepconv", "weights.sepconv=gone.pth"],
        "gone.pth: no such file; expected network-l1.pytorch of github.com/sniklaus/sepconv-slomo",
    ),
    "stage-file-of-something-else": (
        ["model=two_stage", "frame_interpolator=sepconv", "weights.sepconv=other.ckpt"],
        "other.ckpt: holds no SepConv; expected network-l1.pytorch of github.com/sniklaus/sepconv-slomo",
    ),
    "untrained-model": (["model=zooming_slow_mo"], "give checkpoint=FILE, a file that stvsr.train wrote"),
    "misspelt-key": (["method=bicubic_blend", "wokers=1"], "configuration: Could not override 'wokers'. To append to"),
    "misspelt-option": (["method=bicubic_lend"], "configuration: In 'evaluate': Could not find 'method/bicubic_lend'"),
    "key-that-nothing-takes": (
        ["method=bicubic_blend", "+method.sharpness=2"],
        "unexpected keyword argument 'sharpness'\") full_key: method; see the files in ",
    ),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_EVALUATE.values(), ids=BAD_EVALUATE)
def test_bad_input_to_evaluate_ends_in_one_line(run: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.ckpt")
    status, error = run(evaluate.main, *arguments, "output_dir=out")
    assert status in (1, 2)
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert not list(tmp_path.glob("out/*.json"))
    assert not list(tmp_path.glob("out/*.csv"))


BAD_TRAIN = {
    "batch-of-0": (["loader.batch_size=0"], "loader.batch_size=0; expected a whole number, 1 or more"),
    "crop-of-0": (["loader.crop=0"], "loader.crop=0"),
    "crop-no-network-takes": (["loader.crop=10"], "loader.crop=10; expected a multiple of 4"),
    "clips-smaller-than-crop": (["loader.crop=16"], "is 48x48, too small for a crop of 64x64"),
    "another-variant": (
        ["ablation=b", "resume=e.ckpt"],
        "e.ckpt: a checkpoint of another network: its propagation",
    ),
    "logging-now-and-then": (
        ["trainer.log_every_n_steps=sometimes"],
        "trainer.log_every_n_steps=sometimes; expected a whole number, 0 or more",
    ),
    "missing-resume": (["resume=gone.ckpt"], "gone.ckpt: no such file"),
    "misspelt-model-key": (["+model.chanels=8"], "chanels"),
    "no-data-folder": (["data=vimeo90k", "data.root=nowhere"], "nowhere: no sep_trainlist.txt there"),
    "null-for-a-folder": (["data=videos", "data.root=null"], "data.root=null; expected the path of clips"),
    "null-to-validate-on": (
        ["data=videos", "data.root=here", "data.val_root=null"],
        "data.val_root=null; expected the path of clips: give it, or omit val_root",
    ),
    "null-for-a-pack": (
        ["data=vimeo90k_packed", "data.root=here", "data.pack=null"],
        "data.pack=null; expected the path of clips",
    ),
    "no-variant": (["variant=null"], "variant=None; expected a name of at most 64 characters"),
    "long-variant": (["variant=" + 70 * "x"], "xxx; expected a name of at most 64 characters"),
    "variant-of-several": (["variant=[a]"], "variant=['a']; expected a name of at most 64 characters"),
    "letters-beyond-a-to-z": (
        ["output_dir=ü"],
        "output_dir=ü: non-ASCII letters and ~ need quotes",
    ),
    "unwritable-output": (["output_dir=/dev/null/out"], "/dev/null/out"),
    "no-choice-of-a-group": (
        ["logger=null"],
        "null selects no file of a config group; name one, such as logger=csv;",
    ),
    "module-that-is-not-there": (["objective._target_=own.Objective"], "'own.Objective': No module named 'own'; see"),
    "module-that-needs-another": (
        ["objective._target_=mine.Objective"],
        "'mine.Objective': No module named 'not_installed'; see",
    ),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_TRAIN.values(), ids=BAD_TRAIN)
def test_bad_input_to_train_ends_in_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
    small_run: Callable[..., object],
) -> None:
    torch.save(
        {MODEL_KEY: train.resolved(small_run("ablation=e").model), "state_dict": {}, "optimizer_states": []},
        tmp_path / "e.ckpt",
    )
    # Only generated data has a size to choose.
    generated = not any(argument.startswith("data=") for argument in arguments)
    small = [setting for setting in SMALL_RUN if generated or not setting.startswith("data.")]
    (tmp_path / "mine.py").write_text("import not_installed", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    status, error = run(train.main, *small, "output_dir=out", *arguments)
    assert status in (1, 2)
    messages = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, error
    assert says in messages[0]
    assert "Traceback" not in error
    assert not list(tmp_path.glob("out/checkpoints/*"))


def test_bad_runs_to_report_end_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    # Folders of a sweep may have a number as their name.
    (tmp_path / "0").mkdir()
    bad = {"[]": "runs=[]", "[empty]": "empty: no results.json there", "[0]": "0: no results.json there"}
    for runs, says in bad.items():
        status, error = run(report.main, f"runs={runs}", "output_dir=out")
        assert status == 1
        assert error.startswith("error: ")
        assert says in error
        assert len(error.splitlines()) == 1
    status, error = run(report.main, "output_dir=out")
    assert "runs is not given" in error


def test_no_is_not_taken_for_true_by_the_dashboard(run: Run) -> None:
    assert run(dashboard.main, "online=no") == (1, "error: online=no; expected true or false\n")


def cut_off(path: Path) -> None:
    write_video(path, moving_frames(20, (48, 64)))
    path.write_bytes(path.read_bytes()[:-600])


BAD_VIDEOS = {
    "no-video": lambda path: path.write_text("once upon a time"),
    "empty": lambda path: path.write_bytes(b""),
    "cut-off": cut_off,
    "too-short": lambda path: write_video(path, moving_frames(6, (48, 64))),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("make", BAD_VIDEOS.values(), ids=BAD_VIDEOS)
def test_bad_video_is_named_in_one_line(run: Run, tmp_path: Path, make: Callable[[Path], object], workers: int) -> None:
    (tmp_path / "videos").mkdir()
    make(tmp_path / "videos" / "bad.mp4")
    arguments = [
        "method=bicubic_blend",
        "data=videos",
        "data.root=videos",
        f"workers={workers}",
        "output_dir=out",
    ]
    status, error = run(evaluate.main, *arguments)
    messages = [line for line in error.splitlines() if line.startswith("error: ")]
    assert status == 1, error
    assert len(messages) == 1, error
    assert "bad" in messages[0]
    assert "Traceback" not in error
    assert not list(tmp_path.glob("out/*.json"))


@pytest.mark.parametrize("data", ["videos", "held"])
@pytest.mark.parametrize("make", BAD_VIDEOS.values(), ids=BAD_VIDEOS)
def test_a_bad_video_to_validate_on_is_named_before_the_first_step(
    run: Run, tmp_path: Path, make: Callable[[Path], object], data: str
) -> None:
    for folder in ("good", "other"):
        write_video(tmp_path / folder / "good.mp4", moving_frames(8, (48, 64)))
    make(tmp_path / "other" / "bad.mp4")
    settings = [option for option in SMALL_RUN if not option.startswith("data.")]
    scenes = ["data.train_source.scenes=1", "data.train_source.side=48"] if data == "held" else []
    sources = [f"data={data}", "data.root=good", "data.val_root=other", *scenes]
    status, error = run(train.main, *settings, *sources, "trainer.max_steps=1000000", "output_dir=out")
    assert status == 1, error
    # A progress bar may precede it.
    assert error.count("error: ") == error.count("error: other/bad.mp4: ") == 1, error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("out/**/*.c*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_png_is_named_in_one_line(run: Run, tmp_path: Path, workers: int) -> None:
    for motion in ("slow", "medium", "fast"):
        folder = tmp_path / "vimeo" / "sequences" / motion_list(motion)[0]
        folder.mkdir(parents=True)
        for number in range(1, 8):
            Image.effect_noise((64, 48), 50).convert("RGB").save(folder / f"im{number}.png")
    damaged = folder / "im5.png"
    damaged.write_bytes(damaged.read_bytes()[:700])
    arguments = ["data=vimeo90k", "data.root=vimeo", "data.test_source.source.clips_per_split=1", f"workers={workers}"]
    status, error = run(evaluate.main, "method=bicubic_blend", *arguments, "output_dir=out")
    assert status == 1, error
    assert f"error: vimeo/sequences/{motion_list('fast')[0]}/im5.png: not a readable PNG" in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("out/*.csv"))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()]
)
def test_too_little_memory_for_a_batch_is_said_with_the_remedy(error: BaseException) -> None:
    message, status = explain(error)
    assert status == 1
    assert message is not None
    assert message.endswith("not enough memory: use smaller batches, crops or frames")


class UncompletedJobError(RuntimeError):
    """Named as in submitit."""


class FailedJobError(RuntimeError):
    """Named as in submitit."""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            FailedJobError("sbatch: error: Batch job submission failed: Requested time limit is invalid"),
            "SLURM rejected a job (sbatch: error: Batch job submission failed: Requested time limit is invalid); "
            "set hydra.launcher.timeout_min, .partition or .account for it",
        ),
        (
            UncompletedJobError("Job 7 (task: 0) has not produced any output (state: OUT_OF_MEMORY)"),
            "SLURM ended a job (Job 7 (task: 0) has not produced any output (state: OUT_OF_MEMORY)); the others "
            "continue: compare them at the end with stvsr.report, and run that job's settings again with its "
            "output_dir, with more memory or time if needed",
        ),
        (
            RuntimeError("can't start new thread"),
            "can't start new thread: the system grants no more threads, memory or open files; raise its limits (ulimit "
            "-u, -v, -n, or a container's --pids-limit and --memory), or use fewer workers",
        ),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:5: Connection reset by peer"),
            "another process of this run has ended, often for lack of memory; give the same command again",
        ),
        (RuntimeError("Symlink loop from 'a'"), "Symlink loop from 'a': symbolic links form a loop; remove one"),
    ],
)
def test_what_others_refuse_is_one_line_with_a_remedy(error: Exception, says: str) -> None:
    assert explain(error) == (says, 1)


def test_a_job_that_failed_on_its_node_is_not_said_to_be_refused() -> None:
    assert explain(FailedJobError("Job (task=0) failed during processing with trace: ...")) == (None, 1)


def test_a_bug_of_ours_is_not_explained_away() -> None:
    assert explain(RuntimeError("oops")) == (None, 1)
    assert explain(KeyError("oops")) == (None, 1)


def test_an_error_a_library_wrapped_is_found() -> None:
    wrapped = RuntimeError("in call to target")
    wrapped.__cause__ = InvalidInput("crop=0;\n  expected more")
    assert explain(wrapped) == ("crop=0; expected more", 1)


class Raises:
    """Stands for one of our classes that Hydra instantiates."""

    def __init__(self, *, error: str) -> None:
        raise RAISED[error]


RAISED = {
    "bug": KeyError("oops"),
    "type": TypeError("unsupported operand type(s) for +: 'int' and 'NoneType'"),
    "size": ZeroDivisionError("integer modulo by zero"),
    "file": PermissionError(errno.EACCES, "Permission denied", "locked/a.mp4"),
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "reference": InterpolationKeyError("no such key"),
}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"error": "bug"}, None),
        ({"error": "type"}, "configuration: "),
        ({"error": "size"}, "configuration: "),
        ({"error": "file"}, "locked/a.mp4: Permission denied; choose"),
        ({"error": "full"}, "No space left on device; make room or check the disk, then give the same command again"),
        ({"error": "reference"}, "configuration: "),
        ({"error": "bug", "sharpness": 2}, "unexpected keyword argument"),
        ({}, "missing 1 required keyword-only argument"),
    ],
)
def test_of_what_our_classes_raise_only_wrong_settings_are_blamed_on_the_configuration(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], says: str | None
) -> None:
    monkeypatch.setattr("stvsr.evaluation.sweep.SweepReport", Raises)
    monkeypatch.setattr(Raises, "__module__", "stvsr.evaluation.sweep")
    with pytest.raises(Exception, match="Error in call to target 'stvsr") as caught:
        instantiate({"_target_": "stvsr.evaluation.sweep.SweepReport", **settings})
    message, _ = explain(caught.value)
    assert (message is None) == (says is None)
    assert says is None or (message is not None and says in message)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"error": "bug"}, None),
        ({"error": "type"}, "configuration: "),
        ({"sharpness": 2}, "unexpected keyword argument"),
    ],
)
def test_a_bug_in_a_class_of_ones_own_keeps_its_traceback(settings: dict[str, object], says: str | None) -> None:
    with pytest.raises(Exception, match=rf"Error in call to target '{__name__}\.Raises'") as caught:
        instantiate({"_target_": f"{__name__}.Raises", **settings})
    message, _ = explain(caught.value)
    assert (message is None) == (says is None)
    assert says is None or (message is not None and says in message)


@pytest.mark.parametrize("target", ["stvsr.training.losses.charbonnier", "stvsr.data.synthetic.SyntheticScenes"])
def test_a_mistyped_keyword_of_what_is_made_later_is_a_matter_of_the_configuration(target: str) -> None:
    later = instantiate({"_target_": target, "_partial_": True, "sharpness": 2})
    with pytest.raises(TypeError) as caught:
        later()
    message, status = explain(caught.value)
    assert status == 2
    assert message is not None
    assert "unexpected keyword argument 'sharpness'" in message


def test_a_mistyped_keyword_in_code_of_ones_own_is_no_matter_of_the_configuration() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument") as caught:
        Raises(sharpness=2)  # type: ignore[call-arg]
    assert explain(caught.value) == (None, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "pytorch_lightning.Trainer", "accelerator": "quantum", "logger": False},
        {"_target_": "stvsr.nowhere.Nothing"},
    ],
)
def test_what_a_library_refuses_and_what_is_not_there_is_a_matter_of_the_configuration(
    settings: dict[str, object],
) -> None:
    with pytest.raises(Exception, match="Error") as caught:
        instantiate(settings)
    message, status = explain(caught.value)
    assert (message or "").startswith("configuration: ")
    assert status == 2


def test_a_sweep_for_slurm_without_what_submits_it_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Plugins are loaded once, and later would bring the launcher back.
    Plugins.instance()
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "submitit_slurm.yaml", raising=False)
    status, error = run(evaluate.main, "-m", "hydra/launcher=slurm", "method=bicubic_blend", "protocol=paper,released")
    assert status == 2
    assert error.startswith("error: configuration: hydra/launcher=slurm needs hydra-submitit-launcher, which is not ")
    assert error.count("\n") == 1


def test_a_sweep_for_slurm_where_there_is_none_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason='needs pip install ".[slurm]"')
    monkeypatch.setenv("PATH", "")
    status, error = run(evaluate.main, "-m", "hydra/launcher=slurm", "method=bicubic_blend", "protocol=paper,released")
    assert status == 1
    assert error == (
        "error: srun not found; start the sweep where SLURM jobs are submitted, or omit hydra/launcher=slurm\n"
    )


@pytest.mark.parametrize(
    "handled",
    [FileNotFoundError(errno.ENOENT, "No such file or directory", "a.csv"), DamagedClip("a.mp4: cut"), MemoryError()],
    ids=["disk", "user", "memory"],
)
def test_a_bug_while_another_error_was_handled_is_not_explained_away(handled: Exception) -> None:
    bug = KeyError("oops")
    bug.__context__ = handled
    assert explain(bug) == (None, 1)


def test_an_error_that_is_only_called_one_of_the_system_is_not_explained_away() -> None:
    # One has no error number, the other is of a network.
    assert explain(OSError("oops")) == (None, 1)
    assert explain(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")) == (None, 1)


def test_train_then_evaluate_from_the_command_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, error = run(
        train.main,
        *SMALL_RUN,
        "ablation=a",
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        "output_dir=trained",
    )
    assert status == 0, error
    status, error = run(
        evaluate.main, "checkpoint=trained/checkpoints/last.ckpt", *SMALL_SCORING, "logger=csv", "output_dir=scored"
    )
    assert status == 0, error
    assert sorted(path.name for path in (tmp_path / "scored").glob("*.*") if path.is_file()) == [
        ".evaluation",
        "clips.csv",
        "comparison.csv",
        "comparison.md",
        "comparison.tex",
        "evaluate.log",
        "frames.csv",
        "motion.csv",
        "report.html",
        "results.csv",
        "results.json",
        "results.md",
        "results.tex",
    ]


def test_a_sweep_trains_every_ablation_in_a_folder_of_its_own(
    run: Run, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    # Ends before its validation, which is the same as elsewhere.
    arguments = ["trainer.max_steps=1", "trainer.val_check_interval=2"]
    status, error = run(train.main, "-m", "ablation=a,b,c,d,e", *SMALL_RUN, *arguments, "output_dir=sweep")
    assert status == 0, error
    for name in ("0-a", "1-b", "2-c", "3-d", "4-e"):
        trained = torch.load(tmp_path / "sweep" / name / "checkpoints/last.ckpt", weights_only=True)
        variant = configure("train", *SMALL_RUN, f"ablation={name[-1]}")
        assert trained[MODEL_KEY] == train.resolved(variant.model)
        assert (trained[VARIANT_KEY], trained["global_step"]) == (name[-1], 1)


def test_a_job_that_fails_does_not_end_its_sweep_and_the_rest_is_compared(run: Run, tmp_path: Path) -> None:
    small = [*SMALL_SCORING, "method=bicubic_blend", "logger=csv", "workers=0"]
    status, error = run(evaluate.main, "-m", *small, "protocol=paper,released,rstt", "output_dir=three")
    assert status == 0, error
    text = (tmp_path / "three" / "comparison.md").read_text()
    for protocol in ("paper", "released", "rstt"):
        assert f"| bicubic_blend | measured | {protocol} |" in text
    assert "bicubic_blend, released" in (tmp_path / "three" / "report.html").read_text()

    # In the same folder: neither a job that fails now nor one no longer in the sweep may show its earlier results.
    status, error = run(evaluate.main, "-m", *small, "batch_size=0,2", "output_dir=three")
    assert status == 1
    assert "error: batch_size=0; expected a whole number, 1 or more" in error
    assert "error: job 0 of the sweep failed (see above), all others are done" in error
    text = (tmp_path / "three" / "comparison.md").read_text()
    assert text.count("| bicubic_blend | measured |") == 1
    assert "| bicubic_blend | measured | paper |" in text


@pytest.mark.parametrize(
    ("main", "stopped", "arguments"),
    [
        (train.main, "stvsr.training.module.SpaceTimeModule.training_step", [*SMALL_RUN, "seed=1,2"]),
        (evaluate.main, "stvsr.evaluation.progress.Part.add", ["method=bicubic_blend", "batch_size=1,2"]),
    ],
    ids=["train", "evaluate"],
)
def test_a_sweep_that_is_stopped_says_how_to_continue_all_of_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], stopped: str, arguments: list[str]
) -> None:
    def stop(*arguments: object) -> None:
        raise Interrupted("stopped", "continue with resume=last.ckpt")

    monkeypatch.setattr(stopped, stop)
    status, error = run(main, "-m", *arguments, "output_dir=all")
    assert status == 130
    assert error.splitlines()[-1].endswith(
        "stopped; to continue the sweep, give the same command again with output_dir=all"
    )


def test_of_jobs_of_several_processes_none_is_begun_after_one_that_failed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would kill this process during the next job, and leave the processes that this had begun."""
    monkeypatch.setattr("stvsr.cli._has_helpers", lambda: True)
    status, error = run(evaluate.main, "-m", "method=bicubic_blend", "batch_size=0,2", "output_dir=sweep")
    assert status == 1
    assert error.splitlines() == [
        "error: batch_size=0; expected a whole number, 1 or more",
        "error: job 0 failed; its run has several processes, so the sweep ends here: fix it and give the same command "
        "again",
    ]


def test_a_job_of_a_cluster_that_fails_does_not_end_its_sweep_and_the_rest_is_compared(
    run: Run, tmp_path: Path
) -> None:
    """SLURM's launcher, with jobs as processes of this machine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason='needs pip install ".[slurm]"')
    small = [*SMALL_SCORING, "method=bicubic_blend", "logger=csv", "workers=0", "pictures=0"]
    local = [*small, "hydra/launcher=submitit_local"]
    status, error = run(evaluate.main, "-m", *local, "batch_size=0,2", "output_dir=sweep")
    assert status == 1
    assert error == "error: job 0 of the sweep failed (see the launcher's logs below sweep), all others are done\n"
    logs = "".join(path.read_text() for path in (tmp_path / "sweep" / ".submitit").rglob("*.err"))
    assert "error: batch_size=0; expected a whole number, 1 or more" in logs
    assert "| bicubic_blend | measured | paper |" in (tmp_path / "sweep" / "comparison.md").read_text()


def test_a_job_that_a_launcher_ends_to_start_it_again_is_not_taken_for_one_that_failed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preempted(*arguments: object) -> None:
        sys.exit(-1)

    monkeypatch.setattr("stvsr.evaluate.method_name", preempted)
    status, error = run(evaluate.main, "-m", "method=bicubic_blend", "batch_size=1,2", "output_dir=sweep")
    assert status == -1
    assert "failed" not in error


def test_a_bug_in_a_job_does_not_end_its_sweep_and_keeps_its_traceback(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = scoring.frame_scores

    def faulty(prediction: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        if faulty.calls == 0:  # type: ignore[attr-defined]
            faulty.calls = 1  # type: ignore[attr-defined]
            raise AssertionError("a bug")
        return score(prediction, target)

    faulty.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(scoring, "frame_scores", faulty)
    small = [*SMALL_SCORING, "method=bicubic_blend", "logger=csv", "workers=0"]
    status, error = run(evaluate.main, "-m", *small, "protocol=paper,rstt", "output_dir=sweep")
    assert status == 1
    assert "AssertionError: a bug" in error
    assert "error: job 0 of the sweep failed" in error
    assert "| bicubic_blend | measured | rstt |" in (tmp_path / "sweep" / "comparison.md").read_text()


def test_finished_evaluations_are_compared_afterwards(run: Run, tmp_path: Path) -> None:
    small = [*SMALL_SCORING, "method=bicubic_blend", "logger=csv", "workers=0"]
    for name in ("one", "two"):
        status, error = run(evaluate.main, *small, f"name={name}", f"output_dir={name}")
        assert status == 0, error
    status, error = run(report.main, "runs=[one,two]", "output_dir=both")
    assert status == 0, error
    table = (tmp_path / "both" / "comparison.md").read_text()
    assert "| one | measured |" in table
    assert "| two | measured |" in table
    assert (tmp_path / "both" / "report.html").is_file()
    # Results of the same name and protocol are told apart by their folders.
    status, error = run(evaluate.main, *small, "name=one", "output_dir=three")
    status, error = run(report.main, "runs=[one,three]", "output_dir=alike")
    assert status == 0, error
    table = (tmp_path / "alike" / "comparison.md").read_text()
    assert "| one, one | measured |" in table
    assert "| one, three | measured |" in table
    status, error = run(report.main, "runs=one")
    assert (status, error) == (1, "error: runs=one; expected a list: runs=[one]\n")
