"""Turns a video into slow-motion, high-resolution video: `stvsr-upscale INPUT OUTPUT`.

Input and output are video files, folders of PNG frames, or `-` for raw Y4M in a pipe. Sound, subtitles, rotation,
colours and titles of a file are kept. After Ctrl-C or a kill the same command continues the job.
"""

import argparse
import os
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

# By default, waiting OpenMP threads spin and take cores from the encoder (try benchmarks/pipeline.py with
# OMP_WAIT_POLICY=active). torch reads it when loaded, so it is set before the imports.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import av
import torch
from tqdm import tqdm

from stvsr.checkpoint import STARTER, load_network, weight_file
from stvsr.cli import one_line_errors
from stvsr.data.containers import files_of
from stvsr.data.orientation import UPRIGHT
from stvsr.devices import chosen_device, device_name
from stvsr.errors import InvalidInput
from stvsr.files import checksum_of, state_of
from stvsr.models import chunking
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.network import Network
from stvsr.models.released import RELEASED
from stvsr.terminal import BAR, TERMINAL
from stvsr.unfinished import code_checksum
from stvsr.video.budget import Budget
from stvsr.video.clock import Clock
from stvsr.video.codecs import Encoding, chosen_codec
from stvsr.video.companions import Companions
from stvsr.video.delivery import Place, begun_by, check_free, delivery
from stvsr.video.job import Job
from stvsr.video.muxing import EncodedVideo, write_video
from stvsr.video.options import parser
from stvsr.video.outputs import can_turn, check_form, is_y4m, losses
from stvsr.video.picture import Picture
from stvsr.video.prefetch import still_running
from stvsr.video.sinks import PngFolder, SegmentedVideo, Sink, Y4mOutput
from stvsr.video.sources import STANDARD, Part, Source, VideoFile, open_source
from stvsr.video.upscaling import Upscaler

AUTHORS_PAGE = f"https://{RELEASED.project}"
"""Where the authors say how to download their weights."""

SEGMENT_WORK = {"cpu": 300_000, "cuda": 30_000_000}
"""LR pixels times windows in a segment: minutes of work, the most that a kill can cost."""

LONGEST_SEGMENT = 16
"""In windows; each segment begins with a key frame: one in about every hundred frames."""


def upscale(arguments: argparse.Namespace) -> None:
    """Runs the job that a command line describes.

    Raises:
        UserError: something is not as required; nothing half-written has the output's name.
        Interrupted: stopped; the same command resumes.
    """
    output: Path = arguments.output
    encoding = chosen_encoding(arguments)
    # Not Path.resolve(), which fails on circular links.
    source_path = Path(os.path.realpath(arguments.input))
    # Without --overwrite, check_free refuses any output that exists.
    input_and_parents = (source_path, *source_path.parents)
    if arguments.overwrite and output != STANDARD and output.exists() and output.resolve() in input_and_parents:
        raise InvalidInput(f"{output}: is the input, or contains it; choose another output")
    check_free(output, overwrite=arguments.overwrite)
    network = chosen_network(arguments)
    device = resumed_or_chosen_device(arguments)
    part = Part(arguments.start, arguments.duration)
    source = open_source(arguments.input, rate=arguments.rate, part=part)
    clock = Clock(source.times, not arguments.no_interpolate, arguments.slow_motion)
    upscaler = Upscaler(
        network,
        device=device,
        interpolate=clock.interpolated,
        scale=arguments.scale,
        preview=arguments.preview,
        # A preview's frames are turned themselves: its halves must be side by side when shown.
        orientation=UPRIGHT if can_turn(output) and not arguments.preview else source.picture.orientation,
        precision=arguments.precision,
    )
    picture = upscaler.picture(source.picture)
    companions = Companions.of(source, part, clock, output.suffix.lower()) if isinstance(source, VideoFile) else None
    if arguments.method is None and arguments.checkpoint is None:
        say(
            "using the starter weights, which had only a short training; the authors' weights, of 600,000 steps, "
            f"should be better: {AUTHORS_PAGE} says where to download their .pth file, for --checkpoint"
        )
    if encoding is not None:
        encoding.check_size(output.suffix.lower(), picture.width, picture.height)
        encoding.check_rate(output.suffix.lower(), clock.rate)
    announce(source, picture, clock, companions, device)
    for loss in losses(source.picture, picture, clock, output, encoding):
        say(loss)

    # What was read from a pipe cannot be read again.
    in_parts = not is_y4m(output)
    resumable = in_parts and arguments.input != STANDARD
    job_identity = identity(arguments, device)
    with delivery(output, job_identity, overwrite=arguments.overwrite, resumable=resumable, in_parts=in_parts) as place:
        encoder = 0 if encoding is None else encoding.frame_bytes(picture.width * picture.height)
        budget = Budget(network, device, source.picture, picture, encoder, limit=arguments.memory)
        if upscaler.is_learned and source.picture.width * source.picture.height > chunking.LARGEST_WHOLE:
            say("finding tiles that fit into memory, which takes about half a minute")
        upscaler.grid = budget.grid()
        if upscaler.is_learned and not place.begun:
            check_frames(source)
        sink = open_sink(place, encoding, picture, clock, companions, windows_per_segment(upscaler, source.picture))
        job = Job(
            source=source,
            upscaler=upscaler,
            sink=sink,
            folder=place.folder,
            fits=budget.fits,
            say=say,
        )
        whole = job.run(None if source.count is None else clock.count(source.count))
        if resumable and state_of_input(arguments.input) != job_identity["input"]:
            # Its sound may not match, as that is read at the end. Only a warning: the content may be the same.
            say(
                f"warning: {arguments.input} was changed during upscaling: frames made before and after may not match; "
                "check the result, or run the same command again with --overwrite"
            )
        place.deliver(whole)


def chosen_encoding(arguments: argparse.Namespace) -> Encoding | None:
    """How frames are compressed; None if the output is not compressed video.

    Raises:
        InvalidInput: options are incompatible with the output or with each other.
    """
    output: Path = arguments.output
    if is_y4m(output) or not output.suffix:
        for option in ("codec", "crf", "pixel_format"):
            if getattr(arguments, option) is not None:
                raise InvalidInput(f"--{option.replace('_', '-')}: {output} is not compressed; omit it")
        return None
    encoding = Encoding(chosen_codec(output, arguments.codec), arguments.crf, arguments.pixel_format)
    encoding.check()
    check_form(output, encoding)
    return encoding


def chosen_network(arguments: argparse.Namespace) -> Network:
    """The network that makes the frames.

    Raises:
        InvalidInput: the file given holds no network.
    """
    if arguments.method is not None:
        return BicubicBlend().eval()
    return load_network(arguments.checkpoint or STARTER)


def resumed_or_chosen_device(arguments: argparse.Namespace) -> torch.device:
    """The device requested; for `auto`, that of unfinished work, which cannot be resumed on another.

    Raises:
        InvalidInput: the device cannot be used; unfinished work is not given up, as a GPU may only be busy.
    """
    may_continue = arguments.device == "auto" and arguments.output != STANDARD
    unfinished = begun_by(arguments.output) if may_continue else {}
    begun_on = unfinished.get("device")
    # With --overwrite, only unfinished work of this very job is resumed; other work is discarded.
    if begun_on is not None and arguments.overwrite and unfinished != identity(arguments, torch.device(begun_on)):
        begun_on = None
    try:
        return chosen_device(begun_on or arguments.device)
    except InvalidInput as error:
        if begun_on is None:
            raise
        raise InvalidInput(
            f"{arguments.output}: was begun on {begun_on} ({error}); wait until it is available, or start over with "
            "--device cpu --overwrite"
        ) from None


def identity(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything that determines the frames, as plain values."""
    deciding = {key: value for key, value in vars(arguments).items() if key not in ("overwrite", "output", "memory")}
    values: dict[str, Any] = {key: None if value is None else str(value) for key, value in deciding.items()}
    # `upscale` is included because it sets the length of segments, on which resuming relies.
    values["code"] = code_checksum("checkpoint", "data", "graphs", "models", "ops", "upscale", "video")
    # Only segments of one encoder can be joined: players apply the first one's settings to all.
    values |= {"version of torch": str(torch.__version__), "version of PyAV": av.__version__}
    if arguments.method is None:
        values["checkpoint"] = checksum_of([weight_file(arguments.checkpoint or STARTER)])
    values["device"] = str(device)
    values["input"] = state_of_input(arguments.input)
    return values


def state_of_input(path: Path) -> str:
    """A fingerprint that changes when the input is rewritten."""
    if path == STANDARD:
        # A pipe may not give the same again.
        return f"- {time.time_ns()}"
    frames = [file for file in sorted(path.iterdir()) if file.suffix.lower() == ".png"] if path.is_dir() else []
    files = frames if path.is_dir() else files_of(path)
    return f"{path.resolve()} {state_of(files)}"


def windows_per_segment(upscaler: Upscaler, picture: Picture) -> int:
    """The number of windows in a segment: minutes of work, by the kind of device and the size of frames alone."""
    if not upscaler.is_learned:
        return LONGEST_SEGMENT
    work = SEGMENT_WORK.get(upscaler.device.type, SEGMENT_WORK["cpu"])
    return max(1, min(LONGEST_SEGMENT, work // (picture.width * picture.height)))


def open_sink(
    place: Place,
    encoding: Encoding | None,
    picture: Picture,
    clock: Clock,
    companions: Companions | None,
    windows: int,
) -> Sink:
    """The sink for this kind of output."""
    if is_y4m(place.output):
        return Y4mOutput(place.folder and place.folder / "whole.y4m", picture=picture, rate=clock.rate)
    assert place.folder is not None
    if encoding is not None:
        whole = place.folder / f"whole{place.output.suffix.lower()}"
        start = Fraction(0) if companions is None else companions.start_of(clock.times.start)

        def join(segments: list[Path], count: int) -> Path:
            pictures = EncodedVideo(segments, count, clock, encoding.codec, picture, start)
            refused = write_video(whole, pictures, companions)
            if refused:
                say(f"left out: {refused} damaged packet(s) of sound or subtitles")
            return whole

        return SegmentedVideo(
            place.folder, picture=picture, rate=clock.rate, encoding=encoding, windows_per_segment=windows, join=join
        )
    return PngFolder(place.folder / "frames")


def announce(
    source: Source, picture: Picture, clock: Clock, companions: Companions | None, device: torch.device
) -> None:
    """Prints a summary of input and output, and what is left out."""
    lr, times = source.picture, clock.times
    count = "" if source.count is None else f", {source.count} frames"
    varying = " on average" if times.varies else ""
    say(
        f"{source.path.name}: {lr.width}x{lr.height}, {float(times.rate):.6g} frames/s{varying}{count} -> "
        f"{picture.width}x{picture.height}, {float(clock.rate):.6g} frames/s, on {device_name(device)}"
    )
    if companions is not None and companions.left_out:
        say(f"left out: {'; '.join(companions.left_out)}")


def check_frames(source: Source) -> None:
    """Reads all frames once, which is quick beside the network, to find damaged ones before hours of work.

    Raises:
        DamagedClip: names the first damaged frame.
    """
    for _ in tqdm(source.read(), total=source.count, unit="frame", desc="checking", leave=False, **BAR):
        pass


def say(message: str) -> None:
    """Prints a message above the progress bar."""
    tqdm.write(message, file=TERMINAL)


def main() -> None:
    """Runs the command `stvsr-upscale`."""
    arguments = parser().parse_args()
    # FFmpeg's own messages would mix with ours. None ignores them all; with a level, FFmpeg's threads would call into
    # Python and deadlock: they would wait for the GIL of the thread that closes their decoder, which waits for them.
    av.logging.set_level(None)
    try:
        with one_line_errors():
            upscale(arguments)
    except SystemExit as stop:
        if still_running():
            # A network in the middle of a long computation would delay the interpreter's exit, or crash it.
            sys.stderr.flush()
            os._exit(int(stop.code or 0))
        raise


if __name__ == "__main__":
    main()
