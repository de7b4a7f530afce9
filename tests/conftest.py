"""What tests share: small networks, small runs, fake data with the real layout."""

import copy
import csv
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import settings
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from stvsr import upscale
from stvsr.checkpoint import MODEL_KEY, VARIANT_KEY
from stvsr.config import CONFIG_DIR, resolved
from stvsr.data.clip import Footage, to_float
from stvsr.data.png import read_png, write_png
from stvsr.data.synthetic import SyntheticScenes
from stvsr.evaluate import evaluate
from stvsr.models.network import InputRequirements, Network
from stvsr.training.losses import charbonnier
from stvsr.video.job import Job
from stvsr.video.sources import Part, VideoFile

# No deadline, because on a shared machine an example's time means nothing. Derandomized, so that a failure shows to
# whoever caused it, not to whoever comes next.
settings.register_profile("stvsr", deadline=None, derandomize=True)
settings.load_profile("stvsr")

# Before GPUs are hidden from most tests: the CUDA driver reads which GPUs it may show at its first query only.
torch.cuda.is_available()

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
OF_A_DEVELOPER = ("SLURM_", "PL_", "TORCHELASTIC_", "WANDB_DIR", "WANDB_MODE", *RANKS)
"""Prefixes of variables that tell a run that it is one process of several, or how to log."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Gives tests and their processes the same environment everywhere; only those marked `gpu` see a GPU.

    A hook, not a fixture: module-scoped fixtures are made before any fixture of a single test.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OF_A_DEVELOPER)]:
            patch.delenv(name)
        # By default W&B gives up if its process has not started within 30 s, which a busy machine may not manage.
        patch.setenv("WANDB__SERVICE_WAIT", "300")
        if item.get_closest_marker("gpu") is None:
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.setattr(torch.cuda, "is_available", lambda: False)
        return (yield)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs each test in its own folder, so that it leaves no files in the repository."""
    monkeypatch.chdir(tmp_path)


SMALL_NETWORK = ["model.channels=8", "model.feature_blocks=1", "model.reconstruction_blocks=1"]

SMALL_RUN = [
    *SMALL_NETWORK,
    "trainer=cpu",
    "trainer.max_steps=4",
    "trainer.val_check_interval=4",
    "trainer.log_every_n_steps=1",
    "loader.batch_size=2",
    "loader.crop=8",
    "loader.workers=0",
    "logger=csv",
    # A picture takes as long as the rest of a validation; tests of pictures ask for them.
    "callbacks.pictures.clips=0",
    "data.train_source.height=48",
    "data.train_source.width=48",
    "data.val_source.height=48",
    "data.val_source.width=48",
    "data.val_source.clips=3",
]

SMALL_SCORING = [f"data.test_source.source.{size}" for size in ("clips=3", "height=32", "width=48")]
"""Settings of generated clips that are scored in seconds."""


@pytest.fixture
def configure() -> Callable[..., DictConfig]:
    """Composes `conf/<name>.yaml` with overrides."""
    return lambda name, *overrides: copy.deepcopy(composed(name, *overrides))


@cache
def composed(name: str, *overrides: str) -> DictConfig:
    """Composes a config once, as that takes a third of a second; copy it before changing it."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.fixture
def small_run(configure: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes a config that trains in seconds and writes below `tmp_path`; of (a) unless overridden.

    Most training tests need no particular network, and the recurrence of (e) takes four times as long.
    """

    def compose_run(*overrides: str, folder: str = "run") -> DictConfig:
        config = configure("train", "ablation=a", *SMALL_RUN, *overrides)
        config.output_dir = str(tmp_path / folder)
        return config

    return compose_run


@pytest.fixture
def small_network(configure: Callable[..., DictConfig]) -> Callable[..., nn.Module]:
    """Builds a small network of a variant from a seed, with nonzero offsets (before training they are zero)."""

    def build(variant: str = "e", seed: int = 0, *overrides: str) -> nn.Module:
        torch.manual_seed(seed)
        network: nn.Module = instantiate(configure("train", f"ablation={variant}", *SMALL_NETWORK, *overrides).model)
        for name, parameter in network.named_parameters():
            if "offset_mask" in name:
                nn.init.normal_(parameter, std=0.1)
        return network.eval()

    return build


@pytest.fixture
def golden_state() -> Callable[..., dict[str, Tensor]]:
    """Reproducible weights under the names of a published file: `tests/golden/<network>_layout.tsv`.

    More than one dimension: `z * gain / sqrt(prod(shape[1:]))`, with the gain of the first substring that occurs in
    the name; one dimension: `z * 0.1`.
    """

    def fill(network: str, gains: Sequence[tuple[str, float]], default: float) -> dict[str, Tensor]:
        state = {}
        for line in (Path(__file__).parent / "golden" / f"{network}_layout.tsv").read_text().splitlines():
            name, sizes = line.split("\t")
            shape = () if sizes == "scalar" else tuple(map(int, sizes.split("x")))
            z = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).standard_normal(shape)
            gain = next((gain for part, gain in gains if part in name), default)
            scale = 0.1 if len(shape) < 2 else gain / np.sqrt(np.prod(shape[1:]))
            state[name] = torch.as_tensor(z * scale).float()
        return state

    return fill


@pytest.fixture
def generated_clip() -> Tensor:
    """Seven HR frames with fast motion: `(7, 3, 128, 128)`, in [0, 1]."""
    frames = SyntheticScenes(clips=6, height=128, width=128, seed=5).read(5, np.random.default_rng(0)).frames
    return to_float(frames)


@pytest.fixture
def overfitted() -> Callable[..., float]:
    """Trains a network on one example with Adam and Charbonnier's loss; gives the PSNR in dB that it reaches."""

    def train(network: nn.Module, inputs: Sequence[Tensor], target: Tensor, *, steps: int, rate: float) -> float:
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            charbonnier(network(*inputs), target).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            return psnr(network(*inputs), target)

    return train


def psnr(prediction: Tensor, target: Tensor) -> float:
    """PSNR in dB of values in [0, 1], over everything."""
    return -10 * (prediction.clamp(0, 1) - target).square().mean().log10().item()


def check_golden(output: Tensor, network: str, *, tolerance: float, kind: str = "") -> None:
    """Compares an output with `tests/golden/<network>.npz`, in standard deviations of the whole (golden/README.md)."""
    golden = np.load(Path(__file__).parent / "golden" / f"{network}.npz")
    std = golden[f"{kind}std"]
    difference = np.abs(output[:, :, 3::8, 5::8].numpy() - golden[f"{kind}samples"]).max() / std
    assert difference < tolerance, f"{kind}output off by {difference:.1e} of the standard deviation"
    assert abs(output.mean().item() - golden[f"{kind}mean"]) < tolerance * std


def with_callback(config: DictConfig, callback: type[pl.Callback], **arguments: int) -> DictConfig:
    """Adds a callback to the config."""
    with open_dict(config):
        config.callbacks.added = {"_target_": f"{callback.__module__}.{callback.__name__}", **arguments}
    return config


class NoiseSource:
    """Clips of noise, named by their index."""

    def __init__(self, clips: int = 5, size: tuple[int, int] = (48, 64), frames: int = 7) -> None:
        self.clips, self.size, self.frames = clips, size, frames

    def __len__(self) -> int:
        return self.clips

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        pixels = np.random.default_rng(index).integers(0, 256, (self.frames, 3, *self.size), dtype=np.uint8)
        return Footage(
            frames=torch.from_numpy(pixels),
            name=f"noise-{index}",
            motion=("slow", "medium", "fast")[index % 3],
        )


def moving_frames(frames: int, size: tuple[int, int] = (16, 24), seed: int = 0, speed: float = 1.0) -> Tensor:
    """A random picture that moves right: `(frames, 3, H, W)`, uint8; `size` is height and width.

    So smooth that a move of one pixel is not taken for a cut.
    """
    rng, (height, width) = np.random.default_rng(seed), size
    wide = width + int(frames * speed) + 1
    picture = cv2.GaussianBlur(rng.random((height, wide, 3)), (0, 0), 3)
    picture = 255 * (picture - picture.min()) / (picture.max() - picture.min())
    shifts = [int((frames - 1 - i) * speed) for i in range(frames)]
    moved = [picture[:, shift : shift + width] for shift in shifts]
    return torch.from_numpy(np.stack(moved).round().astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def write_frames(folder: Path, frames: Tensor, first: int = 1, name: str = "{:08d}.png") -> None:
    """Writes a clip folder of PNG frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        write_png(folder / name.format(number), frame)


@contextmanager
def taken_elsewhere(folder: Path, job: str) -> Iterator[None]:
    """Runs a job in another process, because a lock does not keep out the process that holds it."""
    # Without torch, which takes seconds to import.
    code = "import sys; from pathlib import Path; from stvsr.unfinished import folder_lock\n"
    code += "with folder_lock(Path(sys.argv[1]), sys.argv[2], '-'): print('in', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(folder), job]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        yield  # on exit, Popen closes its input, and so it ends


def is_taken(folder: Path) -> bool:
    """Whether another process finds that a job runs in a folder."""
    # Without torch, which takes seconds to import.
    code = "import sys; from pathlib import Path; from stvsr.unfinished import folder_lock\n"
    code += "with folder_lock(Path(sys.argv[1]), 'job', '-'): pass"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], stderr=subprocess.PIPE, text=True, check=False)
    return "another job is running there" in done.stderr


def wait_until(reached: Callable[[], bool], process: "subprocess.Popen[Any]", *, seconds: float = 300) -> None:
    """Waits until `reached()`; fails with the process's output if that ends or takes too long first."""
    deadline = time.monotonic() + seconds
    while True:
        # Polled before `reached()`: the process may get there and end in between.
        status = process.poll()
        if reached():
            return
        if status is not None or time.monotonic() > deadline:
            process.kill()
            _, said = process.communicate()
            came = f"ended too early, with status {status}" if status is not None else f"took more than {seconds:g} s"
            pytest.fail(f"it {came}: {said[-2000:] if said else 'it said nothing'}")
        time.sleep(0.005)


def write_video(path: Path, frames: Tensor, rate: Fraction | int = 25, times: Iterable[int] | None = None) -> Path:
    """Writes lossless H.264 at a rate, or at `times` in frames: `(frames, 3, H, W)`, uint8."""
    return _encode(path, frames, times or range(len(frames)), "libx264rgb", "rgb24", rate=rate, options={"crf": "0"})


def write_y4m(path: Path, frames: Tensor, rate: Fraction | int = 25) -> Path:
    """Writes Y4M, in colours rounded to YUV: `(frames, 3, H, W)`, uint8."""
    return _encode(path, frames, range(len(frames)), "wrapped_avframe", "yuv444p", rate=rate)


def _encode(path: Path, frames: Tensor, times: Iterable[int], codec: str, pixels: str, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w", container_options={"strict": "-1"}) as container:
        stream = container.add_stream(codec, **settings)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[-2:], pixels
        for time, frame in zip(times, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            picture = picture.reformat(format=pixels)
            picture.pts = time
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def read_video(path: Path) -> Tensor:
    """All frames of a video or of a folder of PNG files: `(frames, 3, H, W)`, uint8."""
    if path.is_dir():
        return torch.stack([read_png(file) for file in sorted(path.iterdir())])
    return torch.stack(list(VideoFile(path, Part()).frames()))


class Repeat(Network):
    """Costs nothing: repeats each pixel four times in each direction; a synthesised frame is the one before it."""

    requirements = InputRequirements(multiple_of=4, minimum_frames=2)

    def forward(self, lr: Tensor) -> Tensor:
        self.requirements.check(lr)
        large = lr.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
        doubled: Tensor = large.repeat_interleave(2, dim=1)[:, :-1]
        return doubled


@pytest.fixture
def stub() -> Callable[[], Network]:
    return lambda: Repeat().eval()


Run = Callable[..., tuple[int, str]]

BICUBIC = ["--method", "bicubic"]
"""Needs no network, and so no time."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an entry point as the command line would; gives its exit status and standard error."""

    def call(main: Callable[[], None], *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["stvsr", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            status = stop.code
            assert isinstance(status, int)
        else:
            status = 0
        return status, capsys.readouterr().err

    return call


@pytest.fixture
def no_hard_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a stage outlives a failure, `stvsr-upscale` ends its process at once; the tests' process must not end."""
    monkeypatch.setattr(upscale, "still_running", lambda: False)


@pytest.fixture
def run_upscale(run: Run, no_hard_end: None) -> Run:
    """Runs `stvsr-upscale` in this process, in `tmp_path`: exit status and standard error."""
    return partial(run, upscale.main)


def once_filled(monkeypatch: pytest.MonkeyPatch, action: Callable[[Job], object]) -> None:
    """Does something in the middle of an upscaling: when all frames are made, before the output is finished."""
    fill = Job._fill

    def filled(self: Job, expected: int | None) -> None:
        fill(self, expected)
        action(self)

    monkeypatch.setattr(Job, "_fill", filled)


@pytest.fixture
def write_checkpoint(
    configure: Callable[..., DictConfig], small_network: Callable[..., nn.Module], tmp_path: Path
) -> Callable[..., Path]:
    """Writes a checkpoint of a small (a), which costs a tenth of (e) and is run as all others are."""

    def write(seed: int = 0) -> Path:
        state = {f"network.{name}": tensor for name, tensor in small_network("a", seed).state_dict().items()}
        model = resolved(configure("train", "ablation=a", *SMALL_NETWORK).model)
        torch.save({MODEL_KEY: model, VARIANT_KEY: "a", "state_dict": state}, tmp_path / "small.ckpt")
        return tmp_path / "small.ckpt"

    return write


@pytest.fixture
def small_checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    return write_checkpoint()


VID4 = {"calendar": 41, "city": 34, "foliage": 49, "walk": 47}
"""Vid4's clips, with their frame counts."""


def write_vid4(root: Path, size: tuple[int, int] = (32, 48)) -> None:
    """Writes clips laid out like Vid4, with small frames; motion differs from clip to clip."""
    for seed, (clip, frames) in enumerate(VID4.items()):
        write_frames(root / clip, moving_frames(frames, size, seed=seed, speed=0.5 + 2 * seed))


def write_vimeo(root: Path, names: list[str], size: tuple[int, int] = (48, 64)) -> None:
    """Writes clips laid out like Vimeo-90K's, with a training list."""
    for seed, name in enumerate(names):
        write_frames(root / "sequences" / name, moving_frames(7, size, seed=seed, speed=seed), name="im{}.png")
    (root / "sep_trainlist.txt").write_text("\n".join(names) + "\n")


Evaluate = Callable[..., dict[str, list[dict[str, str]]]]


@pytest.fixture
def scored(configure: Callable[..., DictConfig], tmp_path: Path) -> Evaluate:
    """Scores, and gives the rows of `frames.csv`, `clips.csv` and `results.csv`."""

    def run(*overrides: str, folder: str = "out") -> dict[str, list[dict[str, str]]]:
        output = tmp_path / folder
        evaluate(configure("evaluate", "logger=csv", "workers=0", f"output_dir='{output}'", *overrides))
        return {name: read_csv(output / f"{name}.csv") for name in ("frames", "clips", "results")}

    return run


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def vid4(tmp_path: Path) -> Path:
    write_vid4(tmp_path / "vid4")
    return tmp_path / "vid4"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Two clips, six windows in all; the first clip's last window is moved back."""
    for seed, (clip, frames) in enumerate({"city": 20, "walk": 13}.items()):
        write_frames(tmp_path / "few" / clip, moving_frames(frames, (32, 48), seed=seed, speed=1 + 2 * seed))
    return tmp_path / "few"


@pytest.fixture
def noise_source() -> type[NoiseSource]:
    return NoiseSource
