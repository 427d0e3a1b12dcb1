"""Collective operations that make training on many processes equivalent to training on one.

Each process holds an equal slice of the global batch, in rank order (`Loader(part=…)`). In a single process every function
here returns its input. All processes must call each function, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0; only rank 0 writes files and logs progress."""
    return dist.get_rank() if size() > 1 else 0


def gather(rows: Tensor, dim: int = 0) -> Tensor:
    """Rows of all processes along `dim`, in the order of the global batch; without gradient."""
    return rows if size() == 1 else _all_rows(rows.detach(), dim)


def share(blocks: Sequence[Tensor], *, everyones_gradient: bool) -> list[Tensor]:
    """Gather several blocks (…, n, C) of unit vectors to (…, N, C), with gradient, in one exchange.

    Args:
        blocks: this process's rows.
        everyones_gradient: whether this process's rows receive gradient from the losses of all processes, or only from its own.

    The loss L of one process with the whole batch is the mean over processes of L_r, the mean over the rows of process r.
    Data-parallel training averages the gradients of the processes, so process s must return Σ_r ∂L_r/∂z_s for its rows z_s.
    If only its own loss depends on them (queries in momentum contrast: keys carry no gradient), that is ∂L_s/∂z_s and nothing
    is exchanged. If the rows are negatives of other processes (SimCLR), the backward pass sums over processes.
    """
    if size() == 1:
        return list(blocks)
    flat = torch.cat([block.flatten(0, -3) for block in blocks])  # (R, n, C)
    everyone: Tensor = _Share.apply(flat, everyones_gradient)  # (R, N, C)
    parts = everyone.split([block.flatten(0, -3).shape[0] for block in blocks])
    return [part.unflatten(0, block.shape[:-2]) for part, block in zip(parts, blocks, strict=True)]


def mine(rows: Tensor, dim: int = 0) -> Tensor:
    """This process's slice of the global rows (a view)."""
    if size() == 1:
        return rows
    own = rows.shape[dim] // size()
    return rows.narrow(dim, rank() * own, own)


def mean(values: Tensor) -> Tensor:
    """The mean over processes of values that each process computes from its own rows."""
    if size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / size()


def from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite each tensor with that of rank 0."""
    if size() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor, 0)


def largest(number: int, device: torch.device | str = "cpu") -> int:
    """The largest number over all processes; `device` is the device of this training's tensors."""
    if size() == 1:
        return number
    numbers = torch.tensor(number, device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


class _Share(torch.autograd.Function):
    """(R, n, C) of this process → (R, N, C) of all processes; see `share` for the gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, everyones_gradient: bool) -> Tensor:
        ctx.everyones_gradient = everyones_gradient
        return _all_rows(rows, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        if ctx.everyones_gradient:
            grad = grad.contiguous().clone()
            dist.all_reduce(grad)
        return mine(grad, 1), None


def _all_rows(rows: Tensor, dim: int) -> Tensor:
    """(…, n, …) → (…, N, …)."""
    everyone = rows.new_empty((size() * rows.shape[0], *rows.shape[1:]))
    dist.all_gather_into_tensor(everyone, rows.contiguous())
    return everyone.unflatten(0, (size(), -1)).movedim(0, dim).flatten(dim, dim + 1)
