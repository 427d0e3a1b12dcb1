"""Memory of batches, used again: on a machine whose memory is in pieces, new memory costs the kernel half of what the views do."""

from __future__ import annotations

import sys

import numpy as np

_HELD_HERE = 2
"""References to an array that nobody else holds: that of the list, and that of the question."""


class Buffers:
    """Arrays that come back by themselves when the last tensor or array on them is gone; for one thread that takes."""

    def __init__(self, most: int) -> None:
        """Keep at most so many; the oldest is forgotten, and freed as any other when its holder lets go."""
        self._most, self._arrays = most, list[np.ndarray]()

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array of this shape that nobody holds, with any content.

        Views of an array and tensors on it (`torch.from_numpy`) hold it; a bare pointer does not.
        """
        for i in range(len(self._arrays)):
            if self._arrays[i].shape == shape and sys.getrefcount(self._arrays[i]) == _HELD_HERE:
                return self._arrays[i]
        # numpy's memory, not torch's: it asks for huge pages, and touching new memory costs a quarter as much
        array = np.empty(shape, np.float32)
        self._arrays = [*self._arrays, array][-self._most :]
        return array
