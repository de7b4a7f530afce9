"""Scores a method: `python -m stvsr.evaluate checkpoint=FILE data=vimeo90k data.root=DIR protocol=paper`.

A method is a trained network (`checkpoint=`), a two-stage system (`model=two_stage frame_interpolator=dain
frame_upscaler=edvr`), one without learning (`method=bicubic_blend`) or the saved frames of any program
(`predictions=FOLDER`). Writes scores for each clip set and motion split, each clip and each frame, tables
and a report; see `evaluation/results.py`. A stopped evaluation resumes when started again with the same `output_dir`.
"""

from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from stvsr.cli import entry_point
from stvsr.config import CONFIG_DIR, LONGEST_VARIANT, WANDB_OFFLINE, check_flag, check_int
from stvsr.devices import chosen_device, forget_peak_memory
from stvsr.errors import Interrupted, InvalidInput
from stvsr.evaluation.costs import Cost, measured_cost
from stvsr.evaluation.job import Job
from stvsr.evaluation.method import check_one_method, method_name
from stvsr.evaluation.motion_cache import write_motion
from stvsr.evaluation.predictions import saved_files
from stvsr.evaluation.processes import check_processes, score_here, score_in_processes
from stvsr.evaluation.progress import BatchRecord, Progress, progress_folder
from stvsr.evaluation.report import write_report
from stvsr.evaluation.results import RESULTS, Results, read_results
from stvsr.evaluation.rows import summarise
from stvsr.evaluation.scores import ClipScore, clip_scores
from stvsr.evaluation.windows import check_text
from stvsr.terminal import BAR
from stvsr.unfinished import work_in

COUNTS = {"batch_size": 1, "workers": 0, "processes": 1, "pictures": 0}
"""Settings that are whole numbers, each with its minimum."""

WRITTEN = (RESULTS, "clips.csv", "frames.csv", "report.html")
"""Files of a finished evaluation that other programs read."""

ABLATIONS = frozenset(file.stem for file in (CONFIG_DIR / "ablation").glob("*.yaml"))
"""Names of ablations, which tables put in brackets, as the paper does."""


def evaluate(config: DictConfig, *, discard_other: bool = False) -> Results:
    """Scores what a config names on the test clips of its data, and writes results and report.

    Args:
        config: composed from `conf/evaluate.yaml`; its `variant`, by which loggers name the run, is set here.
        discard_other: whether to discard the progress of another evaluation in its `output_dir` rather than refuse it.

    Returns:
        Scores and costs.

    Raises:
        UserError: the method or the data is not as required.
        Interrupted: stopped; called again with the same config, it resumes.
    """
    # Imported here, as W&B and Lightning would take seconds in each scoring process; and first, so that a missing
    # one is noticed at once.
    from stvsr.tracking import track_evaluation

    check_one_method(config)
    check_values(config)
    name = method_name(config)
    check_text("the method", name, "give name=…")
    config.variant = name[:LONGEST_VARIANT]
    # If other processes score, this one stays off their GPUs.
    device = chosen_device("cpu" if config.processes > 1 else config.device)
    # Count the memory of this method, not that of earlier work in this process.
    forget_peak_memory(device)
    job = Job(config, device)
    job.output.check()
    key = job.progress_key()
    if (finished := finished_before(job, key, name)) is not None:
        return finished
    if not work_in(progress_folder(config)):
        job.output.check_links()
    progress = Progress(progress_folder(config), key)
    with progress.locked(discard_other=discard_other):
        records = score(job, progress)

        windows = [window for record in records for window in record.windows]
        write_motion(Path(config.motion_cache), windows)
        clips = clip_scores(job.tasks, windows, job.thresholds)
        results = Results(
            name=f"({name})" if name in ABLATIONS else name,
            protocol=job.protocol,
            cost=cost_of(job, records),
            rows=summarise(clips, job.protocol),
            settings=job.settings() | {"beginnings": beginnings(clips)},
            seconds={
                what: sum(getattr(record, f"{what}_seconds") for record in records)
                for what in ("network", "scoring", "waiting")
            },
            left_out={_name(clip): clip.left_out for clip in clips if clip.left_out is not None},
            cropped={_name(clip): clip.cropped for clip in clips if clip.cropped},
            notes=job.notes(),
            made_with=job.results_key(key, name, (window.state for window in windows)),
        )
        folder = Path(config.output_dir)
        results.write(folder, clips)
        write_report(folder, [folder])
        track_evaluation(config, results)
        # Last, so that if anything above fails, it can be repeated without scoring again.
        progress.finish()
        return results


def check_values(config: DictConfig) -> None:
    """Refuses wrong values that later code would accept, or reject without a clear message.

    Raises:
        InvalidInput: names the value.
    """
    for count, minimum in COUNTS.items():
        check_int(count, config[count], least=minimum)
    for flag in ("save_frames", "protocol.cover_tail", "protocol.average_folders", WANDB_OFFLINE):
        check_flag(config, flag)
    if config.save_frames and config.predictions is not None:
        raise InvalidInput("save_frames=true with predictions: those are already saved; omit one of the two")
    check_processes(config.processes, str(config.device))


def finished_before(job: Job, key: dict[str, Any], name: str) -> Results | None:
    """The results of an identical earlier evaluation in the folder; None without any, or if a needed file is gone."""
    folder = Path(job.config.output_dir)
    needed = [folder / name for name in WRITTEN]
    if (saved := job.scorer.save_to) is not None:
        needed += [file for task in job.tasks for file in saved_files(saved / task.folder, task.numbers)]
    if work_in(progress_folder(job.config)) or not all(path.exists() for path in needed) or not job.is_all_ours():
        return None
    # Results of another version may be unreadable.
    with suppress(InvalidInput):
        results = read_results(folder)
        windows = job.scorer.windows
        if results.made_with == job.results_key(key, name, map(windows.state, job.tasks)):
            print(f"{folder}: already scored in the same way; to score and log it again, remove {RESULTS} there")
            # A sweep compares only results whose time has changed.
            (folder / RESULTS).touch()
            return results
    return None


def score(job: Job, progress: Progress) -> list[BatchRecord]:
    """Scores the batches not scored yet, with a progress bar, and returns all records in order."""
    batches = job.scorer.batches
    done = progress.records(job.is_current)
    todo = [number for number in range(len(batches)) if number not in done]
    if not done:
        job.output.clear()
    bar = tqdm(
        total=len(job.tasks),
        initial=sum(len(record.windows) for record in done.values()),
        desc="scoring",
        unit="window",
        **BAR,
    )
    try:
        with bar:
            if job.config.processes > 1 and todo:
                for count in score_in_processes(job.config, progress.identity, todo):
                    bar.update(count)
            else:
                for record in score_here(job, progress, todo):
                    bar.update(len(record.windows))
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after {bar.n} of {bar.total} windows",
            f"run it again with the same output_dir ({job.config.output_dir}) to continue",
        ) from None
    records = progress.records(job.is_current)
    if len(records) < len(batches):
        raise InvalidInput(
            f"frames of {len(batches) - len(records)} of {len(batches)} batches were overwritten while being scored; "
            "once all are written, run the same command again"
        )
    return [records[number] for number in range(len(batches))]


def beginnings(clips: list[ClipScore]) -> dict[str, str]:
    """For each clip set, a checksum of the first two true frames of its clips: a name may come to mean other clips."""
    pixels: dict[str, str] = {}
    for clip in clips:
        pixels[clip.info.clip_set] = pixels.get(clip.info.clip_set, "") + clip.beginning
    return {clip_set: blake2b(checksums.encode(), digest_size=6).hexdigest() for clip_set, checksums in pixels.items()}


def cost_of(job: Job, records: list[BatchRecord]) -> Cost:
    """The network's costs; empty for saved frames, whose network is unknown."""
    if job.network is None or not any(record.network_frames for record in records):
        return Cost()
    return measured_cost(job.network, records)


def _name(clip: ClipScore) -> str:
    return f"{clip.info.clip_set}/{clip.info.name}"


@entry_point("evaluate")
def main(config: DictConfig) -> None:
    """Scores, prints the table and says where the output is."""
    results = evaluate(config)
    print(results.table().as_text())
    seconds = results.seconds
    print(
        f"seconds: network {seconds['network']:.1f}, scoring {seconds['scoring']:.1f}, "
        f"waiting for frames {seconds['waiting']:.1f}"
    )
    print(f"tables and report: {Path(config.output_dir)}")


if __name__ == "__main__":
    main()
