"""The local files that a shard is read from: which have changed since, and whether a finished shard is therefore made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caco_assets.core.products import Product
from caco_assets.imagery.archive.refusals import LASTING, read_refusals
from caco_assets.imagery.catalogs.open import catalog_folder
from caco_assets.imagery.ingest.source_files import State, changed_items, local_files, read_note, states_of, write_note
from caco_assets.settings import Settings, SyntheticSource

_JOURNAL = "journal"
"""Owner of the note of a run that is not finished."""


@dataclass
class ShardSources:
    """The files of a shard, and their states now."""

    note: Path
    """Beside the shard's record."""
    files: dict[str, list[str]]
    """Item → hrefs."""
    states: dict[str, State]
    changed: set[str] = field(default_factory=set)
    """Items whose files have changed since the shard on record was read."""

    @classmethod
    def of(cls, settings: Settings, note: Path, rows: Sequence[Mapping[str, Any]]) -> ShardSources:
        """Of a shard's rows of `scenes.parquet`."""
        # the files of the embedded Earth are a product of our own
        own, folder = isinstance(settings.imagery.source, SyntheticSource), catalog_folder(settings)
        if own or folder is None:
            return cls(note, {}, {})
        files = local_files(rows)
        return cls(note, files, states_of(files, folder))

    def compare(self, owner: str) -> None:
        """Find what has changed since the note of the shard on record, whose fingerprint is `owner`."""
        noted = read_note(self.note, owner)
        if noted is not None:
            self.changed = changed_items(self.files, noted[0], self.states, noted[1])

    def why_again(self, shard: Path, *, retry: bool) -> str | None:
        """Why a finished shard is made again; None: it is not. `retry`: chips that could not be read are a reason.

        Raises:
            UserError: its refusals cannot be read.
        """
        if self.changed:
            first, *others = sorted(self.changed)
            named = f"{first}, …" if others else first
            return f"the files of {len(self.changed)} scenes have changed since it was read ({named})"
        if retry:
            unread = sum(row["item_id"] is not None and row["reason"] not in LASTING for row in read_refusals(shard))
            return f"{unread} of its chips could not be read" if unread else None
        return None

    def begin(self, started: Path) -> frozenset[str]:
        """Items whose files have changed since an interrupted run of the shard began; `started` is its note."""
        noted = read_note(started, _JOURNAL)
        if self.files:
            write_note(started, _JOURNAL, self.states)
        return frozenset(changed_items(self.files, noted[0], self.states, set()) if noted is not None else ())

    def is_noted(self, owner: str) -> bool:
        """Whether there is a note of the shard of this fingerprint, or none is needed."""
        return not self.files or read_note(self.note, owner) is not None

    def write(self, product: Product) -> None:
        """Note the states that the files had before the shard was read."""
        if self.files:
            refused = {row["item_id"] for row in read_refusals(product.path) if row["item_id"] and row["reason"] not in LASTING}
            write_note(self.note, product.fingerprint, self.states, refused)
