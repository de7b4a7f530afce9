"""What the entry points share: where the configuration is, and how an error reaches a person.

An entry point is a function of a config. `entry_point` wraps it with Hydra and turns whatever a user can cause
into one line on standard error and exit status 1 (2 for a wrong configuration, 130 for an interruption).
Anything else is a bug of ours and keeps its traceback.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stvsr.errors import Interrupted, InvalidInput, UserError, one_line

PACKAGE = Path(__file__).parent

INTERRUPTED = 130
"""Exit status of a run that was asked to stop, as shells have it."""

# A wheel carries conf/ inside the package; a clone has it at the top, where a user edits it.
CONFIG_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Makes `main()` of a function that takes the composed config of `conf/<config_name>.yaml`.

    The config's `output_dir` becomes the folder that Hydra made for this job.
    """

    def decorate(run: Callable[[DictConfig], object]) -> Callable[[], None]:
        failed: list[int] = []

        def job(config: DictConfig) -> None:
            config.output_dir = HydraConfig.get().runtime.output_dir
            try:
                # Here and not only around Hydra, which would add lines of its own to an error of a job.
                with one_line_errors(), _one_job():
                    refuse_missing(config)
                    run(config)
            except SystemExit as stop:
                if stop.code == INTERRUPTED or not _others_wait():
                    raise
                # A job that failed does not take the others of its sweep with it.
                failed.append(HydraConfig.get().job.num)
            except Exception:
                if not _others_wait():
                    raise
                # Nor does a bug of ours.
                traceback.print_exc()
                failed.append(HydraConfig.get().job.num)

        @wraps(run)
        def main() -> None:
            failed.clear()
            # Hydra prints errors in its own way unless told to raise them.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            with one_line_errors():
                hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(job)()
            if failed:
                jobs = ", ".join(map(str, failed))
                print(f"error: job {jobs} of the sweep failed (see above), the others are done", file=sys.stderr)
                sys.exit(1)

        return main

    return decorate


def _others_wait() -> bool:
    """Whether this is a job of a sweep whose jobs run in this process, one after the other."""
    config = HydraConfig.get()
    return config.mode == RunMode.MULTIRUN and config.launcher._target_.endswith(".BasicLauncher")


def refuse_missing(config: DictConfig) -> None:
    """Refuses a config in which a value that only the user knows is not given.

    Raises:
        InvalidInput: names the value.
    """
    for name in _missing(config):
        raise InvalidInput(f"{name} is not given; add {name}=… to the command")


def _missing(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        if OmegaConf.is_missing(config, key):
            yield prefix + key
        elif not OmegaConf.is_interpolation(config, key) and isinstance(config[key], DictConfig):
            yield from _missing(config[key], f"{prefix}{key}.")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the process with one line for whatever a user can cause."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Interrupted as stop:
        # All processes of a run stop together. Lightning kills the first as soon as another's status is not 0.
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:
            sys.exit(0)
        print(stop, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        message, status = explain(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(status)


def explain(error: BaseException) -> tuple[str | None, int]:
    """One line and an exit status for an error that a user can cause; None for any other."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    # The first of its kind: Hydra and data loader workers wrap what was raised.
    for link in chain:
        if isinstance(link, UserError):
            return one_line(link), 1
    for link in chain:
        if isinstance(link, HydraException | OmegaConfBaseException) or _is_wrong_argument(link):
            return f"configuration: {one_line(link)}; see the files in {CONFIG_DIR}", 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; choose a file or folder that can be used", 1
    return None, 1


def _is_wrong_argument(error: BaseException) -> bool:
    return isinstance(error, TypeError) and "unexpected keyword argument" in str(error)


@contextmanager
def _one_job() -> Iterator[None]:
    """Lets a job of a sweep start processes of its own, and leaves nothing of it to the next job.

    Lightning starts the other processes of a distributed run with this process's command line. In a sweep that
    would make each of them run the whole sweep, so for the duration of a job the command line is the job's own.
    """
    config = HydraConfig.get()
    if config.mode != RunMode.MULTIRUN:
        yield
        return
    arguments, environment = sys.argv, dict(os.environ)
    sys.argv = [arguments[0], *OmegaConf.to_container(config.overrides.task)]  # type: ignore[misc]
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
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
