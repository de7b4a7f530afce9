"""What the entry points share: how they are run by Hydra, and how errors are reported to the user.

An entry point is a function of a config. `entry_point` wraps it with Hydra and turns any error that a user can cause
into one line on standard error and exit status 1 (2 for a wrong configuration, 130 for an interruption).
Any other error is a bug of ours and keeps its traceback.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from io import TextIOWrapper
from typing import ClassVar

import hydra
import torch.distributed
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from stvsr.config import CONFIG_DIR, check_paths, refuse_missing, refuse_unread, typed
from stvsr.configuration_errors import explain
from stvsr.errors import Interrupted
from stvsr.terminal import TERMINAL

INTERRUPTED = 130
"""Exit status of a run that was asked to stop; shells use the same."""


class ReportedExit(SystemExit):
    """The exit of a process whose error has been reported; distinct from other exits, such as a launcher's own."""


class FailedJob:
    """A failed job of a sweep; creating one adds it to this process's `noted`, which decides the exit status.

    A job returns it, and a launcher passes it on to the process that started the sweep, where unpickling adds it too.

    Args:
        job: its number.
        seen: where its error can be read.
    """

    noted: ClassVar[list["FailedJob"]] = []

    def __init__(self, job: int, seen: str) -> None:
        self.job = job
        self.seen = seen
        self.noted.append(self)

    def __reduce__(self) -> tuple[type["FailedJob"], tuple[int, str]]:
        return FailedJob, (self.job, self.seen)


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Turns a function of the composed config of `conf/<config_name>.yaml` into a `main()` without arguments.

    The config's `output_dir` is set to the folder that Hydra made for the job.
    """

    def decorate(run: Callable[[DictConfig], object]) -> Callable[[], None]:

        def job(config: DictConfig) -> FailedJob | None:
            config.output_dir = HydraConfig.get().runtime.output_dir
            try:
                # Not only around Hydra, which would add lines of its own to a job's error.
                with one_line_errors(), _one_job():
                    refuse_missing(config)
                    refuse_unread(HydraConfig.get().runtime.config_sources, CONFIG_DIR)
                    check_paths(config)
                    _run(run, config)
            except ReportedExit as stop:
                if not _is_in_sweep() or (stop.code == INTERRUPTED and _jobs_run_here()):
                    raise
                # A failed job must not end its sweep.
                return _failed()
            except Exception:
                if not _is_in_sweep():
                    raise
                # Neither must a bug of ours.
                traceback.print_exc()
                return _failed()
            return None

        @wraps(run)
        def main() -> None:
            FailedJob.noted.clear()
            # Hydra prints errors in its own way unless told to raise them.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            try:
                with one_line_errors(), _quiet_without_reader():
                    hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(job)()
            finally:
                # Even if the sweep's report failed.
                if FailedJob.noted:
                    jobs = ", ".join(str(failed.job) for failed in FailedJob.noted)
                    seen = FailedJob.noted[0].seen
                    others = "" if sys.exc_info()[0] else ", all others are done"
                    print(f"error: job {jobs} of the sweep failed (see {seen}){others}", file=sys.stderr)
            if FailedJob.noted:
                sys.exit(1)

        return main

    return decorate


def _run(run: Callable[[DictConfig], object], config: DictConfig) -> None:
    """Runs an entry point; the remedy of an interrupted job of a sweep is to continue the sweep."""
    try:
        run(config)
    except Interrupted as stop:
        if not _is_in_sweep():
            raise
        folder = HydraConfig.get().sweep.dir
        remedy = f"to continue the sweep, give the same command again with {typed('output_dir', folder)}"
        raise Interrupted(stop.done, remedy) from None


def _has_helpers() -> bool:
    """Whether this process has started others for distributed training: a Lightning thread then watches them."""
    return any(type(thread).__name__ == "_ChildProcessObserver" for thread in threading.enumerate())


def _is_in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _jobs_run_here() -> bool:
    """Whether the jobs of the sweep run in this process, one after the other."""
    return bool(HydraConfig.get().launcher._target_.endswith(".BasicLauncher"))


def _failed() -> FailedJob:
    """Records the current job as failed and returns the record.

    Raises:
        ReportedExit: no other job can follow in this process.
    """
    config = HydraConfig.get()
    if _has_helpers():
        # Lightning is about to kill this process, as the run's other processes fail too.
        print(
            f"error: job {config.job.num} failed; its run has several processes, so the sweep ends here: fix it and "
            "give the same command again",
            file=sys.stderr,
        )
        raise ReportedExit(1)
    return FailedJob(config.job.num, "above" if _jobs_run_here() else f"the launcher's logs below {config.sweep.dir}")


@contextmanager
def _quiet_without_reader() -> Iterator[None]:
    """Ends the process when nobody reads its output any more, as in `--help | head`."""
    try:
        try:
            yield
        finally:
            # It may be None, as in a daemon.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise buffered output would be written at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ReportedExit(1) from None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the process with a one-line message for any error that a user can cause."""
    # File names may not be encodable.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", file=TERMINAL)
        raise ReportedExit(INTERRUPTED) from None
    except Interrupted as stop:
        # All processes of a run stop together; if another one's status is not 0, Lightning kills the first.
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:
            sys.exit(0)
        print(stop, file=TERMINAL)
        raise ReportedExit(INTERRUPTED) from None
    except Exception as error:
        message, status = explain(error)
        if message is None:
            raise
        print(f"error: {message}", file=TERMINAL)
        raise ReportedExit(status) from None


@contextmanager
def _one_job() -> Iterator[None]:
    """Lets a job of a sweep start processes of its own, and keeps its state from the next job.

    Lightning starts the other processes of a distributed run with this process's command line. In a sweep each of
    them would run the whole sweep, so for the duration of a job `sys.argv` is the job's own command line.
    """
    config = HydraConfig.get()
    if not _is_in_sweep():
        yield
        return
    arguments, environment = sys.argv, dict(os.environ)
    # Hydra's overrides of a job do not include where its configs are.
    folders = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    search_paths = [setting for setting in config.overrides.hydra if setting.startswith("hydra.searchpath=")]
    config_options = [*(f"--config-dir={folder}" for folder in folders), *search_paths]
    sys.argv = [arguments[0], *config_options, *OmegaConf.to_container(config.overrides.task)]  # type: ignore[misc]
    run_dir = config.run.dir
    OmegaConf.set_readonly(config, False)  # type: ignore[arg-type]
    config.run.dir = config.runtime.output_dir
    try:
        yield
    finally:
        config.run.dir = run_dir
        sys.argv = arguments
        os.environ.clear()
        os.environ.update(environment)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
