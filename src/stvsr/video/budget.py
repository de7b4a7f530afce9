"""The memory that a job may use, and the tiles that fit into it."""

from dataclasses import dataclass

import torch

from stvsr.data.clip import FRAMES
from stvsr.devices import available_memory, used_memory
from stvsr.errors import InvalidInput
from stvsr.models.network import Network
from stvsr.video.memory import bytes_needed, grid_within
from stvsr.video.picture import Picture
from stvsr.video.tiles import Grid

SHARE = 0.7
"""The share of free memory that a job may use if no limit is set."""

WAITING_BYTES = 2 * FRAMES * 3
"""Bytes per output pixel of two windows of finished frames."""


@dataclass(frozen=True)
class Budget:
    """What a job with one network and frames of one size may use.

    Attributes:
        network: what makes the frames.
        device: where it runs.
        lr: the input's frames.
        hr: the finished ones.
        encoder_bytes: bytes that their encoder holds per pixel.
        limit: GiB that the user allows, on a CPU for the whole process; None allows most of what is free.
    """

    network: Network
    device: torch.device
    lr: Picture
    hr: Picture
    encoder_bytes: int
    limit: float | None

    def grid(self) -> Grid:
        """The division of frames with the least work that fits.

        Raises:
            InvalidInput: there is too little memory.
        """
        free = available_memory(self.device) / 2**30
        limited_by = (
            f"--memory {self.limit:g}" if self.limit else f"{free:.1f} GiB are free, of which {SHARE:.0%} may be used"
        )
        return grid_within(self.for_network(SHARE), self.network, self.lr.height, self.lr.width, limited_by=limited_by)

    def fits(self, grid: Grid) -> bool:
        """Whether an earlier run's tiles fit now: within the limit, or into all free memory if none is set."""
        return bytes_needed(grid, self.network, self.lr.height, self.lr.width) <= self.for_network(1.0)

    def for_network(self, share: float) -> float:
        """Bytes that the network may use, not counting finished frames.

        Args:
            share: of free memory, used if no limit is set.

        Raises:
            InvalidInput: the machine has no room for frames that a GPU finishes.
        """
        finished = (WAITING_BYTES + self.encoder_bytes) * self.hr.width * self.hr.height
        free, allowed = available_memory(self.device), None if self.limit is None else self.limit * 2**30
        if self.device.type == "cpu":
            return (share * free if allowed is None else allowed - used_memory()) - finished
        # Finished frames wait in the machine's memory; on a GPU they take none from the network.
        if finished > (room := available_memory(torch.device("cpu"))):
            raise InvalidInput(
                f"finished frames of {self.hr.width}x{self.hr.height} take {finished / 2**30:.1f} GiB of main memory, "
                f"of which {room / 2**30:.1f} are free: close other programs, choose --scale 2, or use smaller frames"
            )
        return share * free if allowed is None else allowed
