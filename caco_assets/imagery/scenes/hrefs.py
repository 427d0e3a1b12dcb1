"""The hrefs of a scene as one text of `scenes.parquet`, which holds their common folder on the web only once."""

from __future__ import annotations

import json
from collections.abc import Mapping

DEPTHS = (1, 2)
"""The folder is directly above the files, then one above (`R10m/…`, `R20m/…` beside each other)."""


def pack(hrefs: Mapping[str, str]) -> str:
    """JSON of band → href; of addresses (with `://`) in one folder, the folder under the key `""` and the rest of each."""
    return json.dumps(_shared(hrefs) or dict(hrefs), separators=(",", ":"))


def unpack(text: str) -> dict[str, str]:
    """Band → href, from what `pack` wrote."""
    table = json.loads(text)
    folder = table.pop("", "")
    return {band: folder + rest for band, rest in table.items()}


def _shared(hrefs: Mapping[str, str]) -> dict[str, str] | None:
    if not all("://" in href for href in hrefs.values()):
        return None
    for depth in DEPTHS:
        folders = {href.rsplit("/", depth)[0] for href in hrefs.values()}
        if len(folders) == 1 and "://" in (folder := f"{folders.pop()}/"):
            return {"": folder, **{band: href[len(folder) :] for band, href in hrefs.items()}}
    return None
