"""An unpickler that runs nothing: it knows how tensors are put together, and every other name becomes a lifeless stand-in.

A pickle is a program. The checkpoints of this field hold, beside their tensors, hyper-parameters of classes that do not exist here,
and a file from elsewhere may name `os.system`. Here no name is ever imported: it is looked up in a small table of our own, and what
is not in it yields objects without any behaviour. Torch's own `weights_only` loader refuses such files altogether.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import Tensor

Storage = Callable[[str, torch.dtype, int], Tensor]
"""(key, dtype, number of elements) → the one-dimensional tensor of that storage."""

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Mapping(dict[Any, Any]):
    """Stands for `OrderedDict`; attributes set on it by the file are dropped."""

    __slots__ = ()

    def __setstate__(self, *state: object) -> None:
        """Nothing."""


class Inert:
    """Stands for an object of a class that is not ours to know; takes whatever is done to it and does nothing."""

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> Inert:  # noqa: D102
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> Inert:
        """Itself."""
        return self

    def __setstate__(self, *state: object) -> None:
        """Nothing."""

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, *_: object) -> None:
        """Nothing."""

    extend = add = append


class _Known(Inert):
    """A function or a type of torch that the table knows."""

    __slots__ = ("_make",)

    def __new__(cls, make: Any) -> _Known:
        known = object.__new__(cls)
        object.__setattr__(known, "_make", make)
        return known

    def __setattr__(self, name: str, value: object) -> None: ...

    def __call__(self, *arguments: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._make(*arguments)


class _StorageType(_Known):
    """A storage type: its dtype."""

    __slots__ = ()

    @property
    def dtype(self) -> torch.dtype:
        """Of its elements."""
        return self._make


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> Tensor:
    """A view of a storage. Torch checks its bounds; a stride of 0 could still blow a few bytes up to any size."""
    if not isinstance(storage, Tensor) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise pickle.UnpicklingError("a tensor without a storage")
    if math.prod(size) > storage.numel():
        raise pickle.UnpicklingError(f"a tensor of {size} in a storage of {storage.numel()} elements")
    return storage.as_strided(size, stride, offset)  # pyright: ignore[reportArgumentType]


def _parameter(data: object, *_: object) -> object:
    return data


_TABLE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Mapping,
    ("torch._utils", "_rebuild_tensor"): _Known(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Known(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Known(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Known(_parameter),
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


class InertUnpickler(pickle.Unpickler):
    """Reads one pickle; `strangers` then lists the names it met that are not in the table."""

    def __init__(self, stream: BinaryIO, storage: Storage) -> None:
        super().__init__(stream)
        self._storage = storage
        self.strangers: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global. Nothing is imported, whatever the name."""
        if (module, name) in _TABLE:
            return _TABLE[module, name]
        self.strangers.add(f"{module}.{name}")
        # a class of its own each time: what one file does to it reaches no other
        return type("Stranger", (Inert,), {"__slots__": ()})

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage that a persistent id of torch names."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise pickle.UnpicklingError("a reference that is no storage of a known type")
        key, count, view = pid[2], pid[4], pid[5] if len(pid) > 5 else None
        if not isinstance(key, str) or not isinstance(count, int) or count < 0 or view is not None:
            raise pickle.UnpicklingError("a storage that is not described as torch does")
        return self._storage(key, pid[1].dtype, count)
