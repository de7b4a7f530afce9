"""What the pipeline costs beside the network: frames/s with a stub network, against decoding and encoding alone.

`python benchmarks/pipeline.py [--size 1280x720] [--frames 40] [--runs 3]`: makes a video, and alternately lets the
pipeline enlarge it with a stub network (each pixel repeated), and decodes it and encodes the same output frames with
PyAV alone. Prints frames/s of each run and the median of the ratios, without that of the first run, in which the stub
makes its answer. The encoder and its settings are the same; PyAV alone is given the finished frames as 8-bit RGB, and
must still convert them for the encoder.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

# As stvsr.upscale does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import av
import numpy as np
import torch
from torch import Tensor

from stvsr.data.clip import to_8bit
from stvsr.models.network import InputRequirements, Network
from stvsr.video.clock import Clock
from stvsr.video.codecs import Encoding
from stvsr.video.colour import Colour, FromRgb
from stvsr.video.job import Job
from stvsr.video.muxing import EncodedVideo, write_video
from stvsr.video.picture import Picture
from stvsr.video.sinks import SegmentedVideo, frame_encoder
from stvsr.video.sources import Part, VideoFile
from stvsr.video.upscaling import Upscaler

RATE = Fraction(24)


class Stub(Network):
    """Repeats each pixel four times in each direction, and each frame in time; computes that once for each shape."""

    requirements = InputRequirements(multiple_of=1, minimum_frames=1)

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[torch.Size, Tensor] = {}

    def forward(self, lr: Tensor) -> Tensor:
        """The answer to the first input of the same shape, whatever the input."""
        if lr.shape not in self.answers:
            large = lr.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
            self.answers[lr.shape] = large.repeat_interleave(2, dim=1)[:, :-1].contiguous()
        return self.answers[lr.shape]


def make_video(path: Path, width: int, height: int, frames: int) -> None:
    """Writes a soft moving picture, with a little noise, as cameras add it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            waves = [np.sin((x * a + y * b + 5 * number) / 40) for a, b in ((1, 0.5), (0.3, 1), (1, -1))]
            picture = 128 + 60 * np.stack(waves, -1) + rng.normal(0, 2, (height, width, 3))
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def through_pipeline(video: Path, folder: Path, upscaler: Upscaler) -> int:
    """As `stvsr-upscale` does it; returns the number of output frames."""
    source = VideoFile(video, Part())
    clock = Clock(source.times, interpolated=True, slow_motion=False)
    picture = upscaler.picture(source.picture)
    whole = folder / "whole.mp4"

    def join(segments: list[Path], count: int) -> Path:
        write_video(whole, EncodedVideo(segments, count, clock, "h264", picture), None)
        return whole

    sink = SegmentedVideo(
        folder, picture=picture, rate=clock.rate, encoding=Encoding("h264"), windows_per_segment=16, join=join
    )
    job = Job(source=source, upscaler=upscaler, sink=sink, folder=None, say=print)
    assert source.count is not None
    job.run(clock.count(source.count))
    return job.count


def bare(video: Path, target: Path, output: list[Tensor], frames: int) -> None:
    """Decodes a video and encodes `frames` frames `(3, H, W)`, uint8, taken from `output` in a cycle."""
    encoding = Encoding("h264")
    height, width = output[0].shape[1:]
    colour = Colour.for_size(width, height)
    convert = FromRgb(colour, encoding.pixel_format)
    with av.open(video) as source, av.open(target, "w") as container:
        source.streams.video[0].thread_type = "AUTO"
        stream = frame_encoder(container, encoding, Picture(width, height, colour), 2 * RATE)
        decoded = source.decode(video=0)
        for number in range(frames):
            if number % 2 == 0:
                next(decoded)
            frame = convert(output[number % len(output)])
            frame.pts, frame.time_base = number, 1 / (2 * RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the seconds it took."""
    started = time.perf_counter()
    made = work()
    return made, time.perf_counter() - started


def main() -> None:
    """Prints a line for each run, and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = folder / "input.mp4"
        make_video(video, width, height, arguments.frames)
        stub = Stub()
        upscaler = Upscaler(stub)
        ratios = []
        for run in range(arguments.runs + 1):
            work = folder / f"run{run}"
            work.mkdir()
            made, pipeline = timed(partial(through_pipeline, video, work, upscaler))
            # The same frames: the stub's answer is the same for every window.
            (answer,) = (frames for shape, frames in stub.answers.items() if shape[1] == 4)
            _, plain = timed(partial(bare, video, work / "bare.mp4", list(to_8bit(answer[0])), made))
            ratios.append(plain / pipeline)
            print(
                f"{f'run {run}' if run else 'warm-up'}: pipeline {made / pipeline:.2f} frames/s, decode + encode alone "
                f"{made / plain:.2f} frames/s, ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios[1:]):.2f} at {arguments.size}, {made} output frames")


if __name__ == "__main__":
    main()
