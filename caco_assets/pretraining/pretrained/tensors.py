"""Reads tensors from a file of weights: safetensors, torch's zip format, or its format before 1.6. No code in the file is run."""

from __future__ import annotations

import mmap
import pickle
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from caco_assets.core.errors import UserError, one_line
from caco_assets.pretraining.pretrained.pickle_budget import check_budget
from caco_assets.pretraining.pretrained.safe_unpickler import InertUnpickler

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of a file in torch's format before 1.6."""
# The pickle holds only names, sizes and hyper-parameters; the tensors are stored beside it.
_MAX_PICKLE = 256 << 20
# What its objects may take in memory: of a checkpoint with long lists of hyper-parameters, some tens of times its bytes.
_PICKLE_BASE, _PICKLE_FACTOR = 64 << 20, 64
MAX_GB = 32.0
"""Largest file of weights that is read, in GB."""
# The averaged copies of a network come last: where there are both, the trained one is taken.
_NESTED = (
    "state_dict", "model_state_dict", "model", "network", "teacher", "student", "net", "module", "backbone", "encoder",
    "online_network", "target_network", "model_ema", "state_dict_ema", "ema_state_dict", "ema",
)  # fmt: skip
_MAX_DEPTH = 8
_MOST_COPIES = 4
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    RuntimeError,
    OSError,
    OverflowError,
)


def read_tensors(path: Path, prefix: str | None = None, max_gb: float = MAX_GB) -> dict[str, Tensor]:
    """Names and tensors of the network in a file of weights.

    Args:
        path: `.safetensors`, or any file from `torch.save` (`.pth`, `.pt`, `.bin`, `.ckpt`), in either of its formats. Of a
            checkpoint only the state dict is read.
        prefix: only tensors whose names begin so, without it; names of tensors in nested dicts are joined with dots
            (`model_ema.module.conv1.weight`), and a usual name of the state dict may be left out.
        max_gb: a larger file is refused before it is read.

    Raises:
        UserError: the file is missing, too large, damaged, not readable without running its code, asks for more memory than it
            has bytes, or holds no tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    if (size := path.stat().st_size) > max_gb * 1e9:
        raise UserError(f"{path}: {size / 1e9:.1f} GB, weights of at most {max_gb:g} GB are read; --max-gb allows more")
    if path.suffix.lower() == ".safetensors":
        tree = _safetensors(path)
    else:
        try:
            if zipfile.is_zipfile(path):
                tree = _zip(path)
            elif tarfile.is_tarfile(path):
                raise UserError(f"{path}: in torch's format before 0.1.10, which is not read; save it again with a newer torch")
            else:
                tree = _legacy(path)
        except (*_BROKEN, zipfile.BadZipFile, MemoryError) as error:
            line = one_line(f"{type(error).__name__}: {error}", 150)
            raise UserError(f"{path}: not readable as weights of torch ({line}); save its state dict again, or fetch it") from error
    found = _network(path, tree) if prefix is None else _below(path, tree, prefix)
    _check_shared(path, found)
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not readable as safetensors ({one_line(error, 150)}); fetch it again") from error


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

        found: dict[tuple[str, torch.dtype, int], Tensor] = {}
        left = size = path.stat().st_size

        def shared(key: str, dtype: torch.dtype, count: int) -> Tensor:
            nonlocal left
            if (key, dtype, count) not in found:
                # several members of an archive can name the same bytes
                left -= count * dtype.itemsize
                if left < 0:
                    raise pickle.UnpicklingError("its storages are larger than the file")
                found[key, dtype, count] = _elements(content(f"{top}data/{key}", size), dtype, count)
            return found[key, dtype, count]

        stream = BytesIO(content(f"{top}data.pkl", _MAX_PICKLE))
        check_budget(stream, _PICKLE_BASE + _PICKLE_FACTOR * size)
        return InertUnpickler(stream, shared).load()


def _legacy(path: Path) -> Any:
    """Torch's format before 1.6: magic number, version, machine, the pickle, the storages' keys, then their bytes one by one."""
    left = size = path.stat().st_size
    storages: dict[str, tuple[Tensor, int]] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal left
        if key not in storages:
            # each has its own bytes in the file
            left -= count * dtype.itemsize
            if left < 0:
                raise pickle.UnpicklingError("its storages are larger than the file")
            # filled below: the bytes follow the pickle
            storages[key] = (torch.zeros(count, dtype=dtype), count)
        return storages[key][0]

    # a map of the file gives no more bytes than there are, whatever number the pickle asks for
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        stream = cast("IO[bytes]", mapped)
        if _plain(stream) != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("not a file of torch")
        _plain(stream)
        machine = _plain(stream)
        if not isinstance(machine, Mapping) or machine.get("little_endian") is not True:
            raise UserError(f"{path}: of a big-endian machine, which is not read; save it as safetensors")
        check_budget(stream, _PICKLE_BASE + _PICKLE_FACTOR * size)
        tree = InertUnpickler(stream, storage).load()
        for key in _plain(stream):
            count = int.from_bytes(stream.read(8), "little")
            tensor, expected = storages[key]
            if count != expected:
                raise pickle.UnpicklingError(f"storage {key} has {count} elements, not {expected}")
            tensor.copy_(_elements(stream.read(count * tensor.element_size()), tensor.dtype, count))
    return tree


def _plain(stream: IO[bytes]) -> Any:
    def none(*_: object) -> Tensor:
        raise pickle.UnpicklingError("a tensor where none can be")

    check_budget(stream, _PICKLE_BASE)
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
    raise UserError(
        f"{path}: no state dict in it (it holds {_some(tree)}); looked for tensors there and under {', '.join(_NESTED)}; "
        "--prefix names the place of others"
    )


def _below(path: Path, tree: Any, prefix: str) -> dict[str, Tensor]:
    """The tensors whose joined names begin with a prefix, also below a usual name of the state dict."""
    everything = dict(_joined(tree, "", 0))
    wanted = f"{prefix.rstrip('.')}." if prefix else ""
    for start in (wanted, *(f"{name}.{wanted}" for name in _NESTED)):
        if found := {name.removeprefix(start): tensor for name, tensor in everything.items() if name.startswith(start)}:
            return found
    begins = {name.rpartition(".")[0].split(".layer")[0].split(".blocks")[0]: None for name in everything}
    raise UserError(f"{path}: --prefix {prefix}: no tensor's name begins so; there are {_some(begins)}")


def _joined(tree: Any, before: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Joined name and tensor of everything in nested dicts."""
    if depth < _MAX_DEPTH and isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(value, Tensor):
                yield f"{before}{key}", value
            else:
                yield from _joined(value, f"{before}{key}.", depth + 1)


def _check_shared(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are views of the same few bytes: a network made of them would take more than the file has."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    # tied weights, and copies that share the same bytes, are sound
    if sum(tensor.nbytes for tensor in tensors.values()) > _MOST_COPIES * sum(storages.values()):
        raise UserError(f"{path}: its {len(tensors)} tensors share the same few bytes, so this is no trained network")


def _some(names: Iterable[object]) -> str:
    return ", ".join(sorted(str(name)[:80] for name in names)[:8]) or "nothing"
