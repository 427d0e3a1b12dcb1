"""The published splits of the data sets (`published_splits.yaml`), and whether given lists match one of them."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_bytes

OTHER = "other split lists"
"""Note of a score whose lists are not published ones."""


@dataclass(frozen=True)
class Published:
    """Facts about one data set; fields that its authors do not publish are empty."""

    lists: Mapping[str, tuple[str, ...]]
    """Part → names, in the authors' order."""
    sizes: Mapping[str, int]
    """Part → number of images."""
    checksums: Mapping[str, Mapping[str, str]]
    """Name of a split → part → `sha256:…` or `md5:…` of its list file."""
    faulty: Mapping[str, str] = field(default_factory=dict)
    """Image → what is wrong with it as published."""


@cache
def published(name: str) -> Published:
    """The facts about a data set from `published_splits.yaml`."""
    import yaml

    table: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published_splits.yaml").read_text())
    facts = table[name]
    lists = {part: tuple(names) for part, names in facts.get("lists", {}).items()}
    sizes = facts.get("sizes", {part: len(names) for part, names in lists.items()})
    return Published(lists, sizes, facts.get("checksums", {}), facts.get("faulty", {}))


def source_of(name: str, files: Mapping[str, Path]) -> str:
    """Whether list files are published ones, for the note of a score.

    Args:
        name: of the data set.
        files: part → list file, for every part.

    Returns:
        `published split lists (<name of the split>)`, or `OTHER`.

    Raises:
        UserError: only some of the files are published ones: one was changed or truncated.
    """
    found = {part: read_bytes(file) for part, file in files.items()}
    for split, checksums in published(name).checksums.items():
        same = {part: _is(data, checksums[part]) for part, data in found.items() if part in checksums}
        if all(same.values()):
            return f"published split lists ({split})"
        if any(same.values()):
            odd, known = (next(part for part, equal in same.items() if equal is wanted) for wanted in (False, True))
            raise UserError(
                f"{files[odd]}: not the published list of {split} ({checksums[odd]} is), but {files[known].name} beside it is; "
                "fetch it again, or use lists that belong together"
            )
    return OTHER


def _is(data: bytes, checksum: str) -> bool:
    """Whether these are the published bytes, also if an editor has added a byte order mark or its own line ends."""
    kind, _, digest = checksum.partition(":")
    plain = data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    return any(hashlib.new(kind, each, usedforsecurity=False).hexdigest() == digest for each in (data, plain))
