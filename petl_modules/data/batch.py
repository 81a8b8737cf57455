"""A batch whose lengths stay on the CPU."""

from collections.abc import Callable
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData


class Batch(PaddedBatch):
    """SpeechBrain's batch, of which only the data goes to a device.

    Shapes depend on lengths: whoever had to ask a GPU for them would wait for all that
    it has to do.
    """

    def pin_memory(self) -> "Batch":
        """In place: data into memory that a GPU can read by itself."""
        return self._change(lambda data: data.pin_memory())

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        """In place: data to a device, as `torch.Tensor.to` does it."""
        return self._change(lambda data: data.to(*args, **kwargs))

    def _change(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        for key, value in vars(self).items():
            if isinstance(value, PaddedData):
                setattr(self, key, value._replace(data=function(value.data)))
        return self
