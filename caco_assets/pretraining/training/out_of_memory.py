"""Detects out-of-memory errors and finds a batch size that fits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from caco_assets.core.errors import UserError

# Messages of torch's and C++'s allocators where Python would raise MemoryError.
_ALLOCATORS = ("defaultcpuallocator", "std::bad_alloc", "out of memory", "can't allocate memory", "not enough memory")


def ran_out(error: BaseException) -> bool:
    """Whether the error is a failed allocation, on a GPU or in main memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _ALLOCATORS)


def largest_that_fits(batch_size: int, unit: int, attempt: Callable[[int], object]) -> int | None:
    """Halve the batch until a pass over it succeeds.

    Args:
        batch_size: size that did not fit.
        unit: batches are multiples of it.
        attempt: a forward and backward pass over the given number of first samples; raises as the failed step did.

    Returns:
        The first size that fits: at least half of the largest one; None: even the smallest does not fit.
    """
    size = batch_size
    while (size := size // 2 // unit * unit) >= unit:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        else:
            return size
    return None


def explained(batch_size: int, where: str, words: str, fits: int | None, tried: str) -> UserError:
    """The error for a batch that does not fit.

    Args:
        batch_size: size that did not fit.
        where: position in training.
        words: message of the allocator; the first line is kept.
        fits: see `largest_that_fits`.
        tried: how `fits` was found, or why there is none.
    """
    first = " ".join((words or "no memory left").splitlines()[0].split())[:160]
    advice = f"{fits} fits ({tried}); set pretraining.batch_size={fits}" if fits else f"{tried}; lower it"
    return UserError(
        f"pretraining.batch_size={batch_size}: out of memory at {where} ({first}); {advice}, or lower pretraining.image_size: "
        "training then starts again; the last checkpoint is kept and serves the same settings where more memory is free"
    )
