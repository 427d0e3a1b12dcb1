"""Reads tensors from a file of weights: safetensors, torch's zip format, or its format before 1.6. No code in the file is run."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from caco_assets.core.errors import UserError
from caco_assets.pretraining.pretrained.safe_unpickler import InertUnpickler

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of a file in torch's format before 1.6."""
# The pickle holds only names, sizes and hyper-parameters; the tensors are stored beside it.
_MAX_PICKLE = 256 << 20
_NESTED = ("state_dict", "model_state_dict", "model", "network", "teacher", "student")
_BROKEN = (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, OSError)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of the network in a file of weights.

    Args:
        path: `.safetensors`, or any file from `torch.save` (`.pth`, `.pt`, `.bin`, `.ckpt`), in either of its formats. Of a
            checkpoint only the state dict is read.

    Raises:
        UserError: the file is missing, damaged, not readable without running its code, or holds no tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        if zipfile.is_zipfile(path):
            tree = _zip(path)
        elif tarfile.is_tarfile(path):
            raise UserError(f"{path}: in torch's format before 0.1.10, which is not read; save it again with a newer torch")
        else:
            tree = _legacy(path)
    except (*_BROKEN, zipfile.BadZipFile, MemoryError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise UserError(f"{path}: not readable as weights of torch ({line}); fetch it again") from error
    return _network(path, tree)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable as safetensors ({' '.join(str(error).split())[:150]}); fetch it again") from error


def _zip(path: Path) -> Any:
    """Torch's format since 1.6: `<name>/data.pkl`, and each storage uncompressed at `<name>/data/<key>`."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        top = next((name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if top is None:
            raise UserError(f"{path}: a zip archive, but not one of torch's (no data.pkl in it)")
        if f"{top}constants.pkl" in members:
            raise UserError(f"{path}: a TorchScript program, not weights; save its state dict")
        order = f"{top}byteorder"
        if order in members and archive.read(order) != b"little":
            raise UserError(f"{path}: of a big-endian machine, which is not read; save it as safetensors")

        def content(name: str, limit: int) -> bytes:
            info = members[name]
            # torch's own files are not compressed: compressed data could unpack to any size
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
                raise pickle.UnpicklingError(f"{name} is compressed or larger than it can be")
            return archive.read(info)

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            return _elements(content(f"{top}data/{key}", path.stat().st_size), dtype, count)

        found: dict[tuple[str, torch.dtype, int], Tensor] = {}

        def shared(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if (key, dtype, count) not in found:
                found[key, dtype, count] = storage(key, dtype, count)
            return found[key, dtype, count]

        return InertUnpickler(BytesIO(content(f"{top}data.pkl", _MAX_PICKLE)), shared).load()


def _legacy(path: Path) -> Any:
    """Torch's format before 1.6: magic number, version, machine, the pickle, the storages' keys, then their bytes one by one."""
    size = path.stat().st_size
    storages: dict[str, tuple[Tensor, int]] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if count * dtype.itemsize > size:
            raise pickle.UnpicklingError(f"storage {key} is larger than the file")
        # filled below: the bytes follow the pickle
        return storages.setdefault(key, (torch.zeros(count, dtype=dtype), count))[0]

    with path.open("rb") as stream:
        if _plain(stream) != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("not a file of torch")
        _plain(stream)
        machine = _plain(stream)
        if not isinstance(machine, Mapping) or machine.get("little_endian") is not True:
            raise UserError(f"{path}: of a big-endian machine, which is not read; save it as safetensors")
        tree = InertUnpickler(stream, storage).load()
        for key in _plain(stream):
            count = int.from_bytes(stream.read(8), "little")
            tensor, expected = storages[key]
            if count != expected:
                raise pickle.UnpicklingError(f"storage {key} has {count} elements, not {expected}")
            tensor.copy_(_elements(stream.read(count * tensor.element_size()), tensor.dtype, count))
    return tree


def _plain(stream: BinaryIO) -> Any:
    def none(*_: object) -> Tensor:
        raise pickle.UnpicklingError("a tensor where none can be")

    return InertUnpickler(stream, none).load()


def _elements(content: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(content) != count * dtype.itemsize:
        raise pickle.UnpicklingError(f"a storage of {count} elements with {len(content)} bytes")
    return torch.frombuffer(bytearray(content), dtype=dtype) if count else torch.zeros(0, dtype=dtype)


def _network(path: Path, tree: Any) -> dict[str, Tensor]:
    """The state dict in a file's contents: the contents themselves, or one level below under a usual name."""
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds a pickled object, which cannot be read without running it; save its state dict")
    for held in (*(tree.get(name) for name in _NESTED), tree):
        if isinstance(held, dict) and (tensors := {key: value for key, value in held.items() if isinstance(value, Tensor)}):
            return {str(key): value for key, value in tensors.items()}
    found = ", ".join(sorted(str(key) for key in tree)[:8]) or "nothing"
    raise UserError(f"{path}: no state dict in it (it holds {found}); looked for tensors there and under {', '.join(_NESTED)}")
