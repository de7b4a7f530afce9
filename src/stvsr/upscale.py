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

# Threads that compute would spin while they wait, and take the cores from the encoder (try benchmarks/pipeline.py with
# OMP_WAIT_POLICY=active). Read when torch is loaded, so it stands before the imports.
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
"""LR pixels times windows in a segment: minutes of work, which is what a kill costs."""

LONGEST_SEGMENT = 16
"""Windows; each segment begins with a key frame, about every hundred frames."""


def upscale(arguments: argparse.Namespace) -> None:
    """Does what a command line says.

    Raises:
        UserError: something is not as it should be; nothing half-written has the output's name.
        Interrupted: stopped; the same command continues.
    """
    output: Path = arguments.output
    encoding = chosen_encoding(arguments)
    # Path.resolve() fails where links lead in a circle.
    source_path = Path(os.path.realpath(arguments.input))
    # Without --overwrite nothing that exists is touched; check_free says that.
    holding = (source_path, *source_path.parents)
    if arguments.overwrite and output != STANDARD and output.exists() and output.resolve() in holding:
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
        # The halves of a preview stand side by side as it is shown.
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

    # What a pipe has given cannot be had again.
    in_parts = not is_y4m(output)
    resumable = in_parts and arguments.input != STANDARD
    whose = identity(arguments, device)
    with delivery(output, whose, overwrite=arguments.overwrite, resumable=resumable, in_parts=in_parts) as place:
        encoder = 0 if encoding is None else encoding.frame_bytes(picture.width * picture.height)
        budget = Budget(network, device, source.picture, picture, encoder, limit=arguments.memory)
        if upscaler.is_learned and source.picture.width * source.picture.height > chunking.LARGEST_WHOLE:
            say("looking for what fits into the memory, which takes half a minute or so")
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
        if resumable and state_of_input(arguments.input) != whose["input"]:
            # Sound is read at the end. It may also have been written again as it was, so nothing is thrown away.
            say(
                f"warning: {arguments.input} was changed while it was upscaled: what was made of it before and after "
                "may not belong together; look at the result, or give the same command again with --overwrite"
            )
        place.deliver(whole)


def chosen_encoding(arguments: argparse.Namespace) -> Encoding | None:
    """How frames are compressed, or None where they are not.

    Raises:
        InvalidInput: options that do not go with the output or with each other.
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
    """What makes the frames.

    Raises:
        InvalidInput: a file that holds no network.
    """
    if arguments.method is not None:
        return BicubicBlend().eval()
    return load_network(arguments.checkpoint or STARTER)


def resumed_or_chosen_device(arguments: argparse.Namespace) -> torch.device:
    """The device asked for; for `auto`, that of unfinished work, which cannot go on elsewhere.

    Raises:
        InvalidInput: it cannot be used; a GPU that is busy for a while is no reason to give earlier work up.
    """
    may_continue = arguments.device == "auto" and arguments.output != STANDARD
    theirs = begun_by(arguments.output) if may_continue else {}
    begun_on = theirs.get("device")
    # What --overwrite throws away decides nothing; a killed job that was begun with it is continued.
    if begun_on is not None and arguments.overwrite and theirs != identity(arguments, torch.device(begun_on)):
        begun_on = None
    try:
        return chosen_device(begun_on or arguments.device)
    except InvalidInput as error:
        if begun_on is None:
            raise
        raise InvalidInput(
            f"{arguments.output}: was begun on {begun_on} ({error}); wait until that can be used, or start over with "
            "--device cpu --overwrite"
        ) from None


def identity(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything that decides the frames, as plain values."""
    decides = {key: value for key, value in vars(arguments).items() if key not in ("overwrite", "output", "memory")}
    known: dict[str, Any] = {key: None if value is None else str(value) for key, value in decides.items()}
    # This file is among them because it sets the length of segments, on which resuming relies.
    known["code"] = code_checksum("checkpoint", "data", "graphs", "models", "ops", "upscale", "video")
    # Segments of one encoder alone join: players have the settings of the first for all.
    known |= {"version of torch": str(torch.__version__), "version of PyAV": av.__version__}
    if arguments.method is None:
        known["checkpoint"] = checksum_of([weight_file(arguments.checkpoint or STARTER)])
    known["device"] = str(device)
    known["input"] = state_of_input(arguments.input)
    return known


def state_of_input(path: Path) -> str:
    """Changes when the input is written again."""
    if path == STANDARD:
        # Nobody knows whether the same comes again.
        return f"- {time.time_ns()}"
    frames = [file for file in sorted(path.iterdir()) if file.suffix.lower() == ".png"] if path.is_dir() else []
    files = frames if path.is_dir() else files_of(path)
    return f"{path.resolve()} {state_of(files)}"


def windows_per_segment(upscaler: Upscaler, picture: Picture) -> int:
    """How many windows may be lost by a kill: minutes of work, by the device and the size of the frames alone."""
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
    """Says what will be made of what, and what of it is left out."""
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
    """Reads all frames once, which takes little time beside a network's: a damaged one shows before its hours.

    Raises:
        DamagedClip: names it.
    """
    for _ in tqdm(source.read(), total=source.count, unit="frame", desc="checking", leave=False, **BAR):
        pass


def say(message: str) -> None:
    """Tells the user something, above the progress bar."""
    tqdm.write(message, file=TERMINAL)


def main() -> None:
    """The command `stvsr-upscale`."""
    arguments = parser().parse_args()
    # FFmpeg's own messages would stand between ours. None ignores all of them; a level would have FFmpeg's threads call
    # into Python, where they would wait for the lock of the thread that closes their decoder and waits for them.
    av.logging.set_level(None)
    try:
        with one_line_errors():
            upscale(arguments)
    except SystemExit as stop:
        if still_running():
            # A network in the middle of a long computation would hold up the end of the interpreter, or crash it.
            sys.stderr.flush()
            os._exit(int(stop.code or 0))
        raise


if __name__ == "__main__":
    main()
