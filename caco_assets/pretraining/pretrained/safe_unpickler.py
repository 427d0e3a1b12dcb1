"""Unpickler that runs no code: it rebuilds tensors and replaces every unknown name with an inert placeholder.

A pickle is a program. Checkpoints often hold, beside their tensors, hyper-parameters of classes that are not installed here,
and an untrusted file may name `os.system`. No name is ever imported: names are looked up in a small table, and those that
are not in it yield objects without behaviour. Torch's own `weights_only` loader rejects such files altogether.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import IO, Any

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
    """Replaces `OrderedDict`; attributes set on it by the file are dropped."""

    __slots__ = ()

    def __setstate__(self, *state: object) -> None:
        """Does nothing."""


class Inert:
    """Placeholder for an object of an unknown class; accepts every operation and does nothing."""

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> Inert:  # noqa: D102
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> Inert:
        """Returns the placeholder itself."""
        return self

    def __setstate__(self, *state: object) -> None:
        """Does nothing."""

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, *_: object) -> None:
        """Does nothing."""

    extend = add = append


class _Known(Inert):
    """A function or a type of torch in the table."""

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
        """Dtype of its elements."""
        return self._make


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> Tensor:
    """A view of a storage. Torch checks its bounds; a stride of 0 could still expand a few bytes to any size."""
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
    """Reads one pickle; afterwards `strangers` lists the names that are not in the table."""

    def __init__(self, stream: IO[bytes], storage: Storage) -> None:
        super().__init__(stream)
        self._storage = storage
        self.strangers: set[str] = set()
        # one class for each pickle: changes made by one file do not affect others
        self._stranger = type("Stranger", (Inert,), {"__slots__": ()})

    def find_class(self, module: str, name: str) -> Any:
        """The replacement for a global. No name is imported."""
        if (module, name) in _TABLE:
            return _TABLE[module, name]
        self.strangers.add(f"{module}.{name}")
        return self._stranger

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage with this persistent id of torch."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise pickle.UnpicklingError("a reference that is no storage of a known type")
        key, count, view = pid[2], pid[4], pid[5] if len(pid) > 5 else None
        if not isinstance(key, str) or not isinstance(count, int) or count < 0 or view is not None:
            raise pickle.UnpicklingError("a storage that is not described as torch does")
        return self._storage(key, pid[1].dtype, count)
