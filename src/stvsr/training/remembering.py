"""What callbacks keep in checkpoints."""

from typing import Any, ClassVar

import pytorch_lightning as pl


class Remembering(pl.Callback):
    """A callback that continues with a resumed run.

    Attributes:
        remembered: names of the attributes that checkpoints keep.
    """

    remembered: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {name: getattr(self, name) for name in self.remembered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        for name in self.remembered:
            setattr(self, name, state_dict[name])
