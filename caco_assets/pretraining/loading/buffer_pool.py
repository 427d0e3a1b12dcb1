"""Reuses the memory of batches: on a machine with fragmented memory, allocation costs half as much time as rendering views."""

from __future__ import annotations

import sys

import numpy as np

_HELD_HERE = 2
"""References to an unused array: one from the list, one from the check itself."""


class Buffers:
    """Arrays that are reusable once the last tensor or array on them is freed; for a single taking thread."""

    def __init__(self, most: int) -> None:
        """Keep at most this many arrays; the oldest is dropped and freed with its last reference."""
        self._most, self._arrays = most, list[np.ndarray]()

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An unused float32 array of this shape, with arbitrary content.

        Views of an array and tensors on it (`torch.from_numpy`) keep it in use; a bare pointer does not.
        """
        for i in range(len(self._arrays)):
            if self._arrays[i].shape == shape and sys.getrefcount(self._arrays[i]) == _HELD_HERE:
                return self._arrays[i]
        # numpy's memory, not torch's: numpy requests huge pages, which makes touching new memory four times cheaper
        array = np.empty(shape, np.float32)
        self._arrays = [*self._arrays, array][-self._most :]
        return array
