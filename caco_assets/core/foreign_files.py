"""Reads files that other people's programs wrote: whatever is wrong with them is a `UserError` that names the file.

Such a file may be missing, a folder, a device, cut off, in another encoding, larger than memory, or nested so deeply that its
reader fails much later.
"""

from __future__ import annotations

import codecs
import json
import stat
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError, one_line

MAX_BYTES = 256 << 20
"""Largest text or JSON file that is read."""
MAX_DEPTH = 100
"""Deepest nesting of lists and objects; people and programs write a dozen levels."""
_MAX_YAML = 8 << 20
_SHOWN = 150
# Longer marks first: UTF-32 begins with the mark of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: Path, advice: str = "fetch it again", *, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        advice: what the user can do about it; ends every message.
        max_bytes: a larger file is refused before it is read.

    Raises:
        UserError: missing, not a regular file, not readable, or too large.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{path}: a folder, where a file belongs; {advice}")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: a device or a pipe, where a file belongs; {advice}")
        if status.st_size > max_bytes:
            raise UserError(f"{path}: {status.st_size} bytes, at most {max_bytes} are read; {advice}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; {advice}") from error
    # ValueError: a null byte in the path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: not readable ({one_line(reason, _SHOWN)}); {advice}") from error


def read_text(path: Path, advice: str = "fetch it again", *, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file; raises as `read_bytes` and `parse_text`."""
    return parse_text(read_bytes(path, advice, max_bytes=max_bytes), str(path), advice)


def read_json(path: Path, advice: str = "fetch it again", *, max_bytes: int = MAX_BYTES) -> Any:
    """The value in a JSON file; raises as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, advice, max_bytes=max_bytes), str(path), advice)


def read_object(path: Path, advice: str = "fetch it again", *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: as `read_json`, or the value is not an object.
    """
    return _object(read_json(path, advice, max_bytes=max_bytes), str(path), advice)


def read_yaml(path: Path, advice: str = "correct it", *, max_bytes: int = _MAX_YAML) -> Any:
    """The value in a YAML file; raises as `read_bytes` and `parse_yaml`."""
    return parse_yaml(read_bytes(path, advice, max_bytes=max_bytes), str(path), advice)


def parse_text(data: bytes, where: str, advice: str = "fetch it again") -> str:
    """Text in UTF-8, or in the encoding that its byte order mark names, which is left out.

    Args:
        data: the bytes.
        where: their origin, for the message.
        advice: what the user can do about it.

    Raises:
        UserError: another encoding.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not text in UTF-8 (byte {error.start} is 0x{data[error.start]:02x}); save it as UTF-8, or {advice}"
        ) from error


def parse_json(data: bytes, where: str, advice: str = "fetch it again") -> Any:
    """A JSON value in one of the encodings of `parse_text`.

    Raises:
        UserError: not JSON, nested too deeply, or with characters that no text can hold.
    """
    text = parse_text(data, where, advice)
    try:
        value = json.loads(text)
        _check(value, len(text))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as JSON ({_reason(error)}); {advice}") from error
    return value


def parse_yaml(data: bytes, where: str, advice: str = "correct it") -> Any:
    """A YAML value of plain types, in one of the encodings of `parse_text`.

    Raises:
        UserError: not YAML, nested too deeply, or with aliases that refer to themselves or expand beyond the file.
    """
    import yaml

    text = parse_text(data, where, advice)
    try:
        value = yaml.safe_load(text)
        _check(value, len(text))
    # yaml's own constructors raise many kinds: a key that is a list (TypeError), a date of month 13 (ValueError), ...
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{where}: not readable as YAML ({_reason(error)}); {advice}") from error
    return value


def _object(value: Any, where: str, advice: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: holds a {type(value).__name__}, where an object {{…}} belongs; {advice}")
    return value


def _check(value: Any, length: int) -> None:
    """Refuse a value that would fail later: too deep, self-referring, expanded by aliases, or text that cannot be encoded.

    Args:
        value: the parsed value.
        length: of its text; every part of a value without aliases takes at least one character.
    """
    # an object has two parts for each entry
    left, level = 2 * length, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                each.encode()
            elif isinstance(each, dict | list | tuple | set):
                left -= 2 * len(each)
                if left < 0:
                    raise ValueError("aliases refer to themselves, or expand to more than the file holds")
                below += each
                if isinstance(each, dict):
                    below += each.values()
        if not below:
            return
        level = below
    raise ValueError(f"nested more than {MAX_DEPTH} levels deep, or an alias refers to itself")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested more than {MAX_DEPTH} levels deep"
    if isinstance(error, UnicodeEncodeError):
        return "half a character of UTF-16 in a string"
    return one_line(error, _SHOWN) or type(error).__name__
