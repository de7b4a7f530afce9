"""Callbacks whose state is kept in checkpoints."""

from typing import Any, ClassVar

import pytorch_lightning as pl


class StatefulCallback(pl.Callback):
    """A callback whose state is restored when a run is resumed.

    Attributes:
        saved_attributes: names of the attributes that checkpoints keep.
    """

    saved_attributes: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, Any]:
        """The state that checkpoints keep."""
        return {name: getattr(self, name) for name in self.saved_attributes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what a checkpoint kept."""
        for name in state_dict.keys() & {*self.saved_attributes}:
            setattr(self, name, state_dict[name])
