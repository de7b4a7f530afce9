"""`make bench`: the paper's formulation against ours, the same weights, in one run.

Prints a table: median times of both, the ratio (the median over pairs that ran one after the other) and the largest
difference of their outputs, in standard deviations of the output; and below it the roofline: the arithmetic and the
memory traffic that the method needs, over the measured peaks of this machine. Writes `outputs/bench/results.json`.

The paper's formulation is `benchmarks/paper.py`, in float32; in the row for loading, it is PNG files. Weights are
random, with offsets of about a pixel.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

# As stvsr.upscale does: on a shared machine, waiting threads must not take cores from others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from loading import make_pack, rate, write_archive
from paper import PaperFormulation
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from stvsr.cli import one_line_errors
from stvsr.config import CONFIG_DIR
from stvsr.data.clip import FRAMES, GIVEN, SCALE, UNSPLIT, Batch
from stvsr.data.vimeo90k import training_clips
from stvsr.devices import MIB, chosen_device, device_name, has_bf16, peak_memory, synchronise, used_memory
from stvsr.errors import InvalidInput
from stvsr.files import write_text
from stvsr.graphs import Replayed, recorded_step
from stvsr.models.alignment import DeformableSampling
from stvsr.models.zooming_slow_mo import ZoomingSlowMo
from stvsr.terminal import BAR, TERMINAL
from stvsr.training.losses import charbonnier
from stvsr.training.micro_batches import PIXELS_AT_ONCE, loss_in_micro_batches
from stvsr.video.memory import bytes_taken

SMALL, VID4, FULL_HD = (64, 112), (144, 180), (1080, 1920)
"""LR height and width of a small frame, of Vid4, and of Full HD."""

BATCH, CROP = 24, 32

MICRO_BATCH = PIXELS_AT_ONCE // (GIVEN * CROP**2)
"""Clips of a second, smaller training step: as many as ours processes at once on a CPU."""

Work = Callable[[], Tensor]


@dataclass(frozen=True)
class Result:
    """A row of the table.

    Attributes:
        name: what was measured, and its unit.
        paper: the paper's formulation.
        ours: ours.
        ratio: how many times as good ours is.
        max_difference: of the outputs, in standard deviations; None where there is none to compare.
    """

    name: str
    paper: float
    ours: float
    ratio: float
    max_difference: float | None


def make_network() -> ZoomingSlowMo:
    """The paper's network, variant (e), with random weights and offsets of about a pixel."""
    torch.manual_seed(0)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        network = instantiate(compose("train", ["experiment=full_bidir"]).model)
    for module in network.modules():
        if isinstance(module, DeformableSampling):
            nn.init.uniform_(module.offset_mask.bias, -1, 1)
            nn.init.normal_(module.offset_mask.weight, std=0.02)
    assert isinstance(network, ZoomingSlowMo)
    return network


def paper_formulation() -> PaperFormulation:
    """The same network in the paper's formulation, its weights channels-first as the authors'."""
    return PaperFormulation(make_network().to(memory_format=torch.contiguous_format))


def inference(network: nn.Module, lr: Tensor, *, bf16: bool) -> Work:
    """One forward pass."""

    def run() -> Tensor:
        with torch.inference_mode(), torch.autocast(lr.device.type, torch.bfloat16, enabled=bf16):
            output: Tensor = network(lr)
        return output.float()

    return run


def training(network: nn.Module, lr: Tensor, hr: Tensor, *, bf16: bool) -> Work:
    """Forward, backward and an optimizer step with a learning rate of 0.

    Ours runs as it trains: on a GPU as CUDA graphs, on a CPU in micro-batches.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=0.0)
    ours = isinstance(network, ZoomingSlowMo)
    forward: Callable[[Tensor], Tensor] = network
    if lr.is_cuda and ours:
        with torch.autocast(lr.device.type, torch.bfloat16, enabled=bf16):
            forward = recorded_step(network, lr)
    clips = Batch(lr, hr, names=[""] * len(lr), motions=[UNSPLIT] * len(lr))

    def loss_of(part: Batch) -> Tensor:
        with torch.autocast(lr.device.type, torch.bfloat16, enabled=bf16):
            prediction = forward(part.lr)
        return charbonnier(prediction.float(), part.hr)

    def run() -> None:
        optimizer.zero_grad()
        in_micro_batches = ours and not lr.is_cuda
        loss = loss_in_micro_batches(loss_of, clips, network) if in_micro_batches else loss_of(clips)
        loss.backward()
        optimizer.step()

    return run


def compared(name: str, *, paper: Work, ours: Work, device: torch.device, repeats: int) -> list[Result]:
    """Times both alternately, after a warm-up whose outputs are compared."""
    expected, found = paper(), ours()
    difference = ((found - expected).abs().max() / expected.std()).item()
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        times.append((timed(paper, device), timed(ours, device)))
        say("{}: {:.3f} s, {:.3f} s".format(name, *times[-1]))
    return [row(f"{name}, s", times, difference)]


def exactness(name: str, *, paper: PaperFormulation, ours: nn.Module, lr: Tensor) -> list[Result]:
    """The largest deviation of each from the paper's formulation in float64: the error of float32."""
    exact = inference(deepcopy(paper).double(), lr.double(), bf16=False)().double()
    paper_off, ours_off = (
        1e6 * ((inference(network, lr, bf16=False)() - exact).abs().max() / exact.std()).item()
        for network in (paper, ours)
    )
    return [Result(name, paper_off, ours_off, paper_off / ours_off, None)]


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def row(name: str, pairs: Sequence[tuple[float, float]], difference: float | None = None) -> Result:
    """A row of medians from pairs of costs, the paper's and ours, that were measured one after the other."""
    paper, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Result(name, paper, ours, statistics.median(first / second for first, second in pairs), difference)


def training_inputs(clips: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """LR and HR clips of noise."""
    draw = torch.Generator().manual_seed(1)
    lr = torch.rand(clips, GIVEN, 3, CROP, CROP, generator=draw)
    hr = torch.rand(clips, FRAMES, 3, SCALE * CROP, SCALE * CROP, generator=draw)
    return lr.to(device), hr.to(device)


@dataclass(frozen=True)
class Step:
    """A training step.

    Attributes:
        seconds: its duration, after a warm-up.
        mib: its peak memory in MiB, beyond the network and its inputs.
    """

    seconds: float
    mib: float


def one_step(which: str, clips: int, gradient: Path, device: torch.device, *, bf16: bool) -> Step:
    """Runs a training step in this process, a fresh one; saves the gradient of the first parameter."""
    network = (paper_formulation() if which == "paper" else make_network()).to(device)
    lr, hr = training_inputs(clips, device)
    if device.type == "cuda":
        before, warm_up = torch.cuda.memory_allocated(device) / MIB, 3
    else:
        # On a CPU a step takes minutes; one of a single clip is enough to start all threads.
        training(network, lr[:1], hr[:1], bf16=bf16)()
        before, warm_up = used_memory() / MIB, 0
    step = training(network, lr, hr, bf16=bf16)
    for _ in range(warm_up):
        step()
    seconds = timed(step, device)
    torch.save(next(network.parameters()).grad.cpu(), gradient)
    return Step(seconds, peak_memory(device) - before)


def training_steps(name: str, *, clips: int, device: torch.device, repeats: int, bf16: bool) -> list[Result]:
    """Time and memory of training steps, each in a process of its own, which inherits nothing from the one before."""
    pairs: list[tuple[Step, Step]] = []
    with tempfile.TemporaryDirectory() as folder:
        gradients = {which: Path(folder) / f"{which}.pt" for which in ("paper", "ours")}
        for _ in range(repeats):
            pair = []
            for which, gradient in gradients.items():
                arguments = [sys.executable, __file__, "--device", str(device)]
                arguments += ["--step-of", which, str(clips), str(gradient)]
                arguments += ["--bf16"] if bf16 and which == "ours" else []
                done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
                pair.append(Step(**json.loads(done.stdout)))
                say(f"{name}, {which}: {pair[-1].seconds:.2f} s, {pair[-1].mib:.0f} MiB")
            pairs.append((pair[0], pair[1]))
        expected, found = (torch.load(gradient) for gradient in gradients.values())
    difference = ((found - expected).abs().max() / expected.std()).item()
    results = []
    for what, unit, differs in (("seconds", "s", difference), ("mib", "peak memory, MiB", None)):
        values = [(getattr(paper, what), getattr(ours, what)) for paper, ours in pairs]
        results.append(row(f"{name}, {unit}", values, differs))
    return results


def memory(name: str, *, paper: nn.Module, ours: nn.Module) -> list[Result]:
    """Peak memory, in GiB, of a pass over Full HD frames; counted without computing anything."""
    first, second = (bytes_taken(network, *FULL_HD) / 2**30 for network in (paper, ours))
    return [row(f"{name}, memory counted, GiB", [(first, second)])]


def loading(name: str) -> list[Result]:
    """Clips/s of one loader process with one thread."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_archive(root, 2 * BATCH)
        png = training_clips(root=root)
        packed = make_pack(png, root / "pack")
        torch.set_num_threads(1)
        try:
            rates = [(rate(png, 2 * BATCH), rate(packed, 2 * BATCH)) for _ in range(3)]
        finally:
            torch.set_num_threads(threads)
    # The larger rate is better: the ratio is inverted.
    first, second = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(packed / png for png, packed in rates)
    return [Result(f"{name}, clips/s of one process (PNG; packed)", first, second, ratio, None)]


class Needs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-adds of a network's convolutions, and their bytes, each read or written once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.convolution.default, torch.ops.torchvision.deform_conv2d.default):
            self.multiply_adds += made.numel() * args[1][0].numel()
            tensors = [tensor for tensor in [*tree_leaves(args), made] if isinstance(tensor, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return made


def peaks(device: torch.device) -> tuple[float, float]:
    """Multiply-adds/s of a matrix product and bytes/s of a copy, in float32, the best of eight.

    On a GPU the product may use TF32, as cuDNN's convolutions may by default: otherwise it would not bound them.
    """
    side, words = (8192, 2**28) if device.type == "cuda" else (2048, 2**25)
    matrix = torch.rand(side, side, device=device)
    source = torch.rand(words, device=device)
    target = torch.empty_like(source)

    def best(work: Callable[[], object]) -> float:
        return min(timed(work, device) for _ in range(8))

    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32"
    try:
        return side**3 / best(lambda: matrix @ matrix), 8 * words / best(lambda: target.copy_(source))
    finally:
        products.fp32_precision = before


def roofline(paper: PaperFormulation, results: list[Result], device: torch.device) -> None:
    """Prints for each timed row the time that the machine would take at its peaks."""
    arithmetic, bandwidth = peaks(device)
    kind = "matrix product, TF32" if device.type == "cuda" else "matrix product"
    print(
        f"\nmeasured peaks in float32: {arithmetic / 1e9:.0f} G multiply-adds/s ({kind}), "
        f"{bandwidth / 1e9:.1f} GB/s (copy)"
    )
    print(f"{'':<42}{'G mult-adds':>12}{'GB':>8}{'bound, s':>10}{'ours':>8}{'paper':>8}")
    lr = {f"inference {GIVEN}x{h}x{w}": torch.rand(1, GIVEN, 3, h, w) for h, w in (SMALL, VID4)}
    lr[f"training step {BATCH}x{GIVEN}x{CROP}x{CROP}"] = torch.rand(BATCH, GIVEN, 3, CROP, CROP)
    needs: dict[str, tuple[float, float]] = {}
    for name, frames in lr.items():
        # One clip stands for all, which are equal work; a training step is about three passes.
        # Not in inference mode, in which convolutions have other names.
        with torch.no_grad(), Needs() as counted:
            paper(frames[:1].to(device))
        times = len(frames) * (3 if name.startswith("training") else 1)
        needs[name] = (times * counted.multiply_adds, times * counted.bytes)
    for result in results:
        name = next((name for name in needs if result.name == f"{name}, s"), None)
        if name is not None:
            multiply_adds, size = needs[name]
            bound = max(multiply_adds / arithmetic, size / bandwidth)
            print(
                f"{name:<42}{multiply_adds / 1e9:12.0f}{size / 1e9:8.1f}{bound:10.3f}"
                f"{bound / result.ours:8.0%}{bound / result.paper:8.0%}"
            )


def measure(device: torch.device, repeats: int, steps: int) -> None:
    """Measures and reports all rows."""
    output = Path("outputs/bench/results.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    network, paper = Replayed(make_network().to(device).eval()), paper_formulation().to(device).eval()
    print(
        f"{device_name(device)}, torch {torch.__version__}; one warm-up run, then the median of {repeats} "
        f"(training steps: of {steps}), ratios pair by pair",
        flush=True,
    )
    rows: dict[str, Callable[[str], list[Result]]] = {}
    inputs = {
        size: torch.rand(1, GIVEN, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
        for size in (SMALL, VID4)
    }
    for (h, w), lr in inputs.items():
        for bf16 in (False, True) if has_bf16(device) else (False,):
            ours = inference(network, lr, bf16=bf16)
            both = partial(compared, paper=inference(paper, lr, bf16=False), ours=ours, device=device, repeats=repeats)
            rows[f"inference {GIVEN}x{h}x{w}{_in_words(bf16)}"] = both
    for (h, w), lr in inputs.items():
        off = partial(exactness, paper=paper, ours=network, lr=lr)
        rows[f"inference {GIVEN}x{h}x{w}, off float64, 1e-6 std"] = off
    rows["inference {}x{}x{}".format(GIVEN, *FULL_HD)] = partial(memory, paper=paper, ours=network.network)
    for bf16, clips in product((False, True) if device.type == "cuda" else (False,), (BATCH, MICRO_BATCH)):
        steps_of_both = partial(training_steps, clips=clips, device=device, repeats=steps, bf16=bf16)
        rows[f"training step {clips}x{GIVEN}x{CROP}x{CROP}{_in_words(bf16)}"] = steps_of_both
    rows["loading"] = loading
    results, failed = [], []
    for name, work in tqdm(rows.items(), unit="row", **BAR):
        try:
            results += work(name)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            # One failed row must not cost the others, which took minutes.
            say(f"{name} failed: {error}")
            failed.append(name)
        write_text(output, json.dumps([asdict(result) for result in results], indent=1) + "\n")
    print(f"{'':<58}{'paper':>10}{'ours':>10}{'ratio':>8}{'max difference':>16}")
    for result in results:
        difference = "" if result.max_difference is None else f"{result.max_difference:.1e} std"
        print(f"{result.name:<58}{result.paper:10.3f}{result.ours:10.3f}{result.ratio:8.2f}{difference:>16}")
    if not has_bf16(device):
        print("bf16: not measured, this CPU has no instructions for it")
    roofline(paper, results, device)
    print(f"\nwritten to {output}")
    if failed:
        raise InvalidInput(f"{', '.join(failed)}: could not be measured (reasons above); run it again")


def _in_words(bf16: bool) -> str:
    return ", bf16" if bf16 else ""


def say(message: str) -> None:
    """Prints a line above the progress bar."""
    tqdm.write(message, file=TERMINAL)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, help="training steps; 2 on a CPU, where one takes minutes")
    parser.add_argument("--step-of", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with one_line_errors():
        device = chosen_device(arguments.device)
        torch.backends.cudnn.benchmark = True  # as trainer=gpu has it: every row has inputs of one size
        if arguments.step_of is not None:
            which, clips, gradient = arguments.step_of
            print(json.dumps(asdict(one_step(which, int(clips), Path(gradient), device, bf16=arguments.bf16))))
        else:
            measure(device, arguments.repeats, arguments.steps or (2 if device.type == "cpu" else arguments.repeats))


if __name__ == "__main__":
    main()
