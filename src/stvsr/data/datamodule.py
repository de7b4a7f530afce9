"""Loaders for training and validation, shared among processes.

Step `s` of a run takes the draws `s * batch_size … (s+1) * batch_size - 1`, and process `r` of `R` takes the
`r`-th part of them; so `batch_size` is the batch of the whole run, as papers count it, and a run on two processes
sees the clips that one process would. Validation clips are dealt out in turn, each exactly once.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Sampler

from stvsr.config import check_int
from stvsr.data.clip import Batch, Clip, Source
from stvsr.data.datasets import TrainingClips, ValidationClips
from stvsr.data.workers import leave_signals_to_parent, prepare_for
from stvsr.errors import InvalidInput


class DrawBatches(Sampler[list[int]]):
    """This process's draws of each step, from any step on.

    Its length counts all steps, including those before `first_step`: Lightning resumes counting where the run was.
    """

    def __init__(self, *, steps: int, first_step: int, batch_size: int, rank: int, world_size: int) -> None:
        if batch_size % world_size:
            raise InvalidInput(
                f"loader.batch_size={batch_size} with {world_size} processes; expected a multiple of {world_size}: it "
                "is the total over all processes"
            )
        self.steps = steps
        self.first_step = first_step
        self.batch_size = batch_size
        self.rank = rank
        self.share = batch_size // world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.steps):
            start = step * self.batch_size + self.rank * self.share
            yield list(range(start, start + self.share))


class ClipDataModule(pl.LightningDataModule):
    """Training and validation clips of one data set.

    Args:
        train_source: makes the clips to train on; called only when needed, as is `val_source`.
        val_source: makes the clips to validate on.
        batch_size: clips per step, over all processes together; 24 in the paper.
        eval_batch_size: clips per batch in validation; above 1 only if all are of one size.
        crop: side of the LR training crop, pixels; 32 in the paper.
        workers: loader processes per process; 0 reads in the process itself.
        seed: determines every draw of training.

    Raises:
        InvalidInput: a number out of range, a crop that is not a multiple of 4, or a source not callable.
    """

    def __init__(
        self,
        *,
        train_source: Callable[[], Source],
        val_source: Callable[[], Source],
        batch_size: int,
        eval_batch_size: int,
        crop: int,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("crop", crop, 4),
            ("workers", workers, 0),
        ):
            check_int(f"loader.{name}", value, least=least)
        if crop % 4:
            raise InvalidInput(f"loader.crop={crop}; expected a multiple of 4 LR pixels, such as 32")
        for name, source in (("train_source", train_source), ("val_source", val_source)):
            if source is None:
                raise InvalidInput(
                    f"data.{name}=null: these clips are for scoring only; choose other data, such as data=vimeo90k"
                )
            if not callable(source):
                raise InvalidInput(f"data.{name} is already instantiated; expected _partial_: true beside its _target_")
        self.make_train_source = train_source
        self.make_val_source = val_source
        self.train_source: Source | None = None
        self.val_source: Source | None = None
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.crop = crop
        self.workers = workers
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Opens the sources, so that a missing or empty folder is noticed at once.

        Raises:
            InvalidInput: there is no clip to train on.
        """
        if self.train_source is None:
            self.train_source, self.val_source = self.make_train_source(), self.make_val_source()
            if not len(self.train_source):
                raise InvalidInput("data.train_source: no clips to train on; expected at least one: choose other data")

    def train_dataloader(self) -> DataLoader[Clip]:
        """Batches from the step the trainer has reached, up to `trainer.max_steps`.

        Raises:
            InvalidInput: `max_steps` is not set, gradients are accumulated, an epoch would end before the run, or the
                processes cannot share a batch evenly.
        """
        trainer = self.trainer
        assert trainer is not None
        assert self.train_source is not None
        if trainer.max_steps < 1 or trainer.accumulate_grad_batches != 1:
            raise InvalidInput(
                f"trainer.max_steps={trainer.max_steps}, accumulate_grad_batches={trainer.accumulate_grad_batches}; "
                "expected max_steps of 1 or more and no accumulation: training is counted in steps of loader.batch_size"
            )
        # `overfit_batches` sets it as well. A float is a fraction of all steps: 1 is one batch, 1.0 is all.
        limit = trainer.limit_train_batches
        if limit < (1.0 if isinstance(limit, float) else trainer.max_steps):
            raise InvalidInput(
                f"trainer.limit_train_batches={limit}, or overfit_batches: every epoch would repeat the same first "
                "clips; leave it out, and lower trainer.max_steps for a shorter run"
            )
        clips = TrainingClips(
            source=self.train_source,
            crop=self.crop,
            draws=trainer.max_steps * self.batch_size,
            seed=self.seed,
        )
        batches = DrawBatches(
            steps=trainer.max_steps,
            first_step=trainer.global_step,
            batch_size=self.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(clips, batch_sampler=batches, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Clip]:
        """This process's part of the validation clips, whole frames.

        Raises:
            InvalidInput: fewer clips than processes.
        """
        trainer = self.trainer
        assert trainer is not None
        assert self.val_source is not None
        clips = ValidationClips(source=self.val_source)
        if len(clips) < trainer.world_size:
            raise InvalidInput(
                f"{len(clips)} clip(s) to validate on for {trainer.world_size} processes; expected at least one "
                "each: use more clips or fewer trainer.devices"
            )
        part = range(trainer.global_rank, len(clips), trainer.world_size)
        return DataLoader(clips, sampler=part, batch_size=self.eval_batch_size, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        prepare_for(self.workers)
        return {
            "num_workers": self.workers,
            "collate_fn": Batch.collate,
            # Not when training on a CPU: pinning would take memory of a GPU.
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": leave_signals_to_parent,
        }
