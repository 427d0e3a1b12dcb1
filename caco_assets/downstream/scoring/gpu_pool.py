"""Runs independent jobs in one process per GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.queues import Queue
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus() -> list[str]:
    """Names, for `CUDA_VISIBLE_DEVICES`, of the GPUs that this process may use."""
    import torch

    named = os.environ.get(VISIBLE)
    names = named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def one_each[Result](names: Sequence[str], job: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    """The results of `job(*each)`, in the order of `arguments`; one runs per name at a time.

    Args:
        names: of the GPUs; each process sees and keeps exactly one.
        job: a module-level function.
        arguments: argument tuples; picklable, as `job`.

    Raises:
        Exception: the first that a job raises, in their order; pending jobs are cancelled, running ones finish first.
    """
    context = get_context("spawn")
    free: Queue[str] = context.Queue()
    for name in names:
        free.put(name)
    with ProcessPoolExecutor(len(names), context, initializer=_take, initargs=(free,)) as pool:
        futures = [pool.submit(job, *each) for each in arguments]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _take(free: Queue[str]) -> None:
    # before torch is imported: it reads the variable once
    os.environ[VISIBLE] = free.get()
