"""Data loaders: every draw comes once, the same on any number of processes, and from any step on."""

import multiprocessing
import signal
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stvsr.data.clip import Batch, Footage
from stvsr.data.datamodule import ClipDataModule, DrawBatches
from stvsr.data.datasets import TrainingClips
from stvsr.data.workers import prepare_for
from stvsr.errors import InvalidInput
from stvsr.evaluation.scoring import handed_over
from stvsr.evaluation.windows import WindowFrames
from stvsr.train import train


@given(steps=st.integers(1, 9), first=st.integers(0, 9), share=st.integers(1, 4), world_size=st.integers(1, 4))
def test_processes_share_each_steps_draws_from_any_step_on(steps: int, first: int, share: int, world_size: int) -> None:
    batch_size = share * world_size
    parts = [
        list(DrawBatches(steps=steps, first_step=first, batch_size=batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    joined = [[draw for part in step for draw in part] for step in zip(*parts, strict=True)]
    assert joined == [list(range(s * batch_size, (s + 1) * batch_size)) for s in range(first, steps)]


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"batch_size=5 with 2 process"):
        DrawBatches(steps=1, first_step=0, batch_size=5, rank=0, world_size=2)


def module(source: Any, **changes: Any) -> ClipDataModule:
    arguments = {
        "train_source": source,
        "val_source": source,
        "batch_size": 2,
        "eval_batch_size": 1,
        "crop": 8,
        "workers": 0,
        "seed": 0,
    }
    return ClipDataModule(**(arguments | changes))


def test_processes_that_could_not_hand_anything_over_are_refused_before_they_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent would wait forever. Sockets lie in the folder for temporary files, and their paths must be short."""
    far = tmp_path / ("far" * 40)
    far.mkdir()
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", str(far))  # type: ignore[attr-defined]
    prepare_for(0)
    with pytest.raises(InvalidInput, match=r"AF_UNIX path too long.*TMPDIR=/tmp.*or choose 0 workers"):
        prepare_for(1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("phase", ["training", "scoring"])
def test_memory_that_processes_cannot_share_is_told_and_not_waited_for(
    noise_source: Any, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """A container has only 64 MiB of shared memory by default."""

    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    if phase == "training":
        clips = TrainingClips(source=noise_source(clips=4), crop=8, draws=4, seed=0)
        loader = DataLoader(clips, batch_size=2, num_workers=1, collate_fn=Batch.collate)
    else:
        frames = WindowFrames(None, *2 * [torch.zeros(1)], 0, None, [], [], (1, 1), None, "")  # type: ignore[arg-type]
        loader = DataLoader([frames], batch_size=1, num_workers=1, collate_fn=handed_over)  # type: ignore[arg-type]
    with pytest.raises(
        InvalidInput,
        match=r"no room in /dev/shm for another .* read by a loader process \(.*No space left.*\); "
        r".* or choose fewer workers: 0 needs none",
    ) as told:
        next(iter(loader))
    # The error holds the loader in a reference cycle: freed by the garbage collector, it could not tell its process to
    # end, and would wait five seconds.
    traceback.clear_frames(told.tb)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 8.0),
        ("eval_batch_size", 0),
        ("crop", 0),
        ("crop", -8),
        ("crop", 32.0),
        ("workers", -1),
        ("workers", None),
    ],
)
def test_sizes_that_make_no_sense_are_refused(noise_source: Any, argument: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=rf"loader\.{argument}={value}; expected a whole number"):
        module(noise_source, **{argument: value})


def test_crops_that_no_network_takes_are_refused(noise_source: Any) -> None:
    with pytest.raises(InvalidInput, match=r"loader\.crop=10; expected a multiple of 4 LR pixels"):
        module(noise_source, crop=10)


def trainer(**changes: Any) -> Any:
    state = {
        "max_steps": 6,
        "accumulate_grad_batches": 1,
        "limit_train_batches": 1.0,
        "global_step": 0,
        "global_rank": 0,
        "world_size": 1,
        "strategy": SimpleNamespace(root_device=torch.device("cpu")),
    }
    return SimpleNamespace(**(state | changes))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_for_a_training_on_a_gpu_alone(noise_source: Any, device: str) -> None:
    data = module(noise_source)
    data.setup("fit")
    data.trainer = trainer(strategy=SimpleNamespace(root_device=torch.device(device)))
    assert data.train_dataloader().pin_memory == (device == "cuda")


def names(loader: Any) -> list[list[str]]:
    return [batch.names for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_continues_with_the_draw_it_stopped_before(noise_source: Any, workers: int) -> None:
    whole, rest = (module(noise_source, workers=workers) for _ in range(2))
    for data, step in ((whole, 0), (rest, 3)):
        data.setup("fit")
        data.trainer = trainer(global_step=step)
    batches, continued = list(whole.train_dataloader()), list(rest.train_dataloader())
    assert len(batches) == 6
    assert len(continued) == 3
    for expected, actual in zip(batches[3:], continued, strict=True):
        assert isinstance(actual, Batch)
        assert expected.names == actual.names
        assert bool((expected.hr == actual.hr).all())


def test_the_seed_of_a_run_decides_what_it_draws(noise_source: Any) -> None:
    drawn = []
    for seed in (1, 1, 2):
        data = module(noise_source, seed=seed)
        data.setup("fit")
        data.trainer = trainer()
        drawn.append(names(data.train_dataloader()))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize(
    ("limit", "refused"), [(1, True), (5, True), (0.99, True), (1.0, False), (6, False), (7, False)]
)
def test_a_run_whose_batches_would_come_again_is_refused(noise_source: Any, limit: float, refused: bool) -> None:
    """To Lightning, 1 is one batch, 1.0 are all."""
    data = module(noise_source)
    data.setup("fit")
    data.trainer = trainer(limit_train_batches=limit)
    says = rf"limit_train_batches={limit}, or overfit_batches: every epoch would repeat the same first"
    with pytest.raises(InvalidInput, match=says) if refused else nullcontext():
        assert len(data.train_dataloader()) == 6


def test_a_few_batches_can_be_tried_all_the_same(small_run: Any) -> None:
    """Lightning's `fast_dev_run` limits steps and batches alike."""
    train(small_run("+trainer.fast_dev_run=2"))


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Restores Ctrl-C, which a job that a shell runs in the background ignores, as do its child processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_loaders_leave_a_terminals_ctrl_c_and_a_clusters_sigterm_to_their_parent(noise_source: Any) -> None:
    """Both signals reach every process, but the parent needs its loaders until it stops."""

    class Telling(noise_source):  # type: ignore[misc]
        def read(self, index: int, rng: np.random.Generator) -> Footage:
            left = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            # Not on macOS, where a process cannot tell who sent a SIGTERM.
            left &= not hasattr(signal, "sigwaitinfo") or signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            return replace(super().read(index, rng), name=f"left to the parent: {left}")

    data = module(Telling, workers=1)
    data.setup("fit")
    data.trainer = trainer(max_steps=1)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert {name for batch in names(loader) for name in batch} == {"left to the parent: True"}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_scoring_clip_comes_exactly_once(noise_source: Any, world_size: int) -> None:
    seen: list[str] = []
    for rank in range(world_size):
        data = module(noise_source)
        data.setup("fit")
        data.trainer = trainer(global_rank=rank, world_size=world_size)
        seen += [name for batch in names(data.val_dataloader()) for name in batch]
    assert sorted(seen) == [f"noise-{index}" for index in range(5)]


def test_fewer_clips_to_validate_on_than_processes_are_refused(noise_source: Any) -> None:
    """A process without a clip would skip the steps at which the others wait for it."""
    data = module(noise_source)
    data.setup("fit")
    data.trainer = trainer(global_rank=5, world_size=6)
    with pytest.raises(InvalidInput, match=r"5 clip\(s\) to validate on for 6 processes; expected at least one"):
        data.val_dataloader()


@pytest.mark.parametrize("changes", [{"max_steps": -1}, {"accumulate_grad_batches": 2}])
def test_training_without_an_end_or_with_accumulation_is_refused(noise_source: Any, changes: dict[str, int]) -> None:
    data = module(noise_source)
    data.setup("fit")
    data.trainer = trainer(**changes)
    with pytest.raises(InvalidInput, match="expected max_steps of 1 or more and no accumulation"):
        data.train_dataloader()


def test_a_source_that_is_made_already_is_refused_with_the_remedy(noise_source: Any) -> None:
    with pytest.raises(InvalidInput, match=r"data\.train_source is already instantiated; expected _partial_: true"):
        module(noise_source, train_source=noise_source(2))


def test_a_source_without_clips_is_refused(noise_source: Any) -> None:
    data = module(noise_source, train_source=list)
    with pytest.raises(InvalidInput, match=r"data\.train_source: no clips to train on"):
        data.setup("fit")
