"""Memory of batches: used again when nobody holds it, never while somebody does."""

import numpy as np
import torch

from caco_assets.pretraining.loading.buffer_pool import Buffers


def test_what_nobody_holds_is_given_again_and_what_anybody_holds_is_not() -> None:
    buffers = Buffers(4)
    first = buffers.take((2, 3))
    address = first.ctypes.data
    assert (first.shape, first.dtype) == ((2, 3), np.float32)
    part = torch.from_numpy(first)[1]
    del first
    assert buffers.take((2, 3)).ctypes.data != address  # a tensor on a part of it holds it
    row = part.numpy()
    del part
    assert buffers.take((2, 3)).ctypes.data != address  # and so does an array on that tensor
    del row
    assert address in {taken.ctypes.data for taken in [buffers.take((2, 3)), buffers.take((2, 3))]}


def test_a_saved_gradient_input_holds_its_memory() -> None:
    buffers, weight = Buffers(4), torch.ones(3, requires_grad=True)
    loss = (torch.from_numpy(buffers.take((3,))).fill_(2) * weight).sum()
    buffers.take((3,)).fill(7)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2, 2, 2]


def test_another_shape_is_other_memory_and_the_oldest_is_forgotten() -> None:
    buffers = Buffers(2)
    held = [buffers.take((2,)) for _ in range(5)]
    assert len({array.ctypes.data for array in held}) == 5
    oldest = held[0].ctypes.data
    kept = [buffers.take((2,)) for _ in range(2)]
    assert oldest not in {array.ctypes.data for array in kept}
    assert buffers.take((3,)).shape == (3,)
