"""Reads and writes files in object stores (`s3://bucket/…`, `gs://bucket/…`, `az://container/…`), whole or by byte range.

It uses Apache Arrow's clients, which need only pyarrow. Credentials come from each provider's usual environment variables,
never from an address:

| | login | address of a self-hosted store |
|---|---|---|
| `s3` | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, or the machine's role | `AWS_ENDPOINT_URL`, else `CACO_VERSIONS__ENDPOINT` |
| `gs` | `GOOGLE_APPLICATION_CREDENTIALS`, or the machine's role | `STORAGE_EMULATOR_HOST` (used without a login) |
| `az` | `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_KEY`, or the machine's role | `AZURE_STORAGE_SERVICE_ENDPOINT` |
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from caco_assets.core.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

ADDRESS = r"^(s3|gs|az)://[^/@?#]+(/[^?#]*)?$"
"""Pattern of an address, which must not contain a login."""
_OPENED = 256
"""Number of file sizes that are cached: each lookup costs a request."""
_PART = 8 << 20
"""Bytes per upload part: every store accepts this size; Google needs multiples of 256 KiB."""
_PATIENCE_S = 120
"""Google's client would retry an unresponsive store for 15 minutes; the others time out by themselves."""


def is_store(text: str) -> bool:
    """Whether this is an address in an object store."""
    return re.match(ADDRESS, text) is not None


def join(address: str, *parts: str) -> str:
    """Append path components to an address."""
    return "/".join((address.rstrip("/"), *parts))


def size(address: str) -> int | None:
    """Size of a file in bytes; None: it does not exist.

    Raises:
        UserError: the store cannot be asked.
    """
    files, path = _find(address)
    info = _asked(address, lambda: files.get_file_info(path))
    return info.size if info.is_file else None


def read(address: str) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: it is not there.
        UserError: the store cannot be asked.
    """
    files, path = _find(address)

    def whole() -> bytes:
        with files.open_input_file(path) as stream:
            return stream.readall()

    return _asked(address, whole)


def read_range(address: str, offset: int, length: int) -> bytes:
    """Read a byte range of an immutable file in one request (two for the first); shorter at the end of the file. Thread-safe.

    Raises:
        FileNotFoundError: it is not there.
        UserError: the store cannot be asked.
    """
    return _asked(address, lambda: _opened(*_key(address)).read_at(length, offset))


def write(address: str, data: bytes) -> None:
    """Write a whole file at once; see `Upload`."""
    with Upload(address) as upload:
        upload.write(data)


class Upload(io.RawIOBase):
    """A multipart upload: readers see the file only after it is complete and its size is confirmed."""

    def __init__(self, address: str) -> None:
        """Start the upload.

        Raises:
            UserError: the store cannot be asked.
        """
        self.address = address
        self._files, self._path = _find(address)
        self._stream = _asked(address, lambda: self._files.open_output_stream(self._path))
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._written = 0
        self._waiting = bytearray()

    @property
    def md5(self) -> str:
        """MD5 of the bytes written so far."""
        return self._md5.hexdigest()

    def writable(self) -> bool:
        """Always True (part of the stream interface)."""
        return True

    def tell(self) -> int:
        """Number of bytes written so far."""
        return self._written

    def write(self, data: Any) -> int:
        """Add bytes; they are sent once there are enough for a part."""
        self._md5.update(data)
        self._written += len(data)
        self._waiting += data
        while len(self._waiting) >= _PART:
            self._send(_PART)
        return len(data)

    def _send(self, length: int) -> None:
        part = bytes(self._waiting[:length])
        del self._waiting[:length]
        _asked(self.address, lambda: self._stream.write(part))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Finish the upload; after an error, leave no file of this name.

        Raises:
            UserError: the store does not hold what was sent.
        """
        super().close()
        if kind is None:
            self._send(len(self._waiting))
        _asked(self.address, self._stream.close)
        if kind is not None:
            # Arrow's streams cannot be aborted: closing publishes the incomplete file, which is then deleted
            _asked(self.address, lambda: self._files.delete_file(self._path))
            return
        if (there := size(self.address)) != self._written:
            raise UserError(
                f"{self.address}: the store holds {there} bytes of {self._written} sent; stores that know no checksums behind a "
                "request want AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
            )


def _asked[T](address: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except FileNotFoundError:
        raise
    except OSError as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"{address}: {said}; check the store and its login, then run the same command again") from error


Key = tuple[str, ...]
"""A store type and the environment that selects it, without the secrets."""


def _find(address: str) -> tuple[FileSystem, str]:
    """The file system of an address, and the path in it."""
    key, path = _key(address)
    return _client(key), path


def _key(address: str) -> tuple[Key, str]:
    if not is_store(address):
        raise UserError(f"{address}: no address in an object store; write s3://bucket/…, gs://bucket/… or az://container/…")
    kind, _, path = address.partition("://")
    return (kind, *(os.environ.get(name, "") for name in _TOLD[kind])), path


@lru_cache
def _client(key: Key) -> FileSystem:
    kind, *told = key
    return _KINDS[kind](*told)


@lru_cache(_OPENED)
def _opened(key: Key, path: str) -> Any:
    return _client(key).open_input_file(path)


def _s3(endpoint: str, other: str, region: str, default_region: str, _: str) -> FileSystem:
    from pyarrow.fs import S3FileSystem

    own: dict[str, Any] = {"region": region or default_region} if region or default_region else {}
    if endpoint := endpoint or other:
        # a self-hosted store has no regions and seldom supports the trailing checksums of Amazon's client
        own = {"region": "us-east-1", **own, "endpoint_override": endpoint}
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    return S3FileSystem(**own)


def _gs(host: str) -> FileSystem:
    from pyarrow.fs import GcsFileSystem

    patience = timedelta(seconds=_PATIENCE_S)
    if not host:
        return GcsFileSystem(retry_time_limit=patience)
    place = urlsplit(host if "://" in host else f"http://{host}")
    return GcsFileSystem(anonymous=True, scheme=place.scheme, endpoint_override=place.netloc, retry_time_limit=patience)


def _az(account: str, host: str) -> FileSystem:
    from pyarrow.fs import AzureFileSystem

    if not account:
        raise UserError("az://: AZURE_STORAGE_ACCOUNT is not set; it names the account that the container belongs to")
    own: dict[str, Any] = {"account_key": os.environ.get("AZURE_STORAGE_KEY")}
    if host:
        place = urlsplit(host)
        own |= dict.fromkeys(("blob_storage_authority", "dfs_storage_authority"), place.netloc)
        own |= dict.fromkeys(("blob_storage_scheme", "dfs_storage_scheme"), place.scheme)
    return AzureFileSystem(account, **own)


_KINDS: dict[str, Callable[..., FileSystem]] = {"s3": _s3, "gs": _gs, "az": _az}
_TOLD = {
    "s3": ("AWS_ENDPOINT_URL", "CACO_VERSIONS__ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"),
    "gs": ("STORAGE_EMULATOR_HOST",),
    "az": ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_SERVICE_ENDPOINT"),
}
