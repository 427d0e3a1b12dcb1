"""The hrefs of a scene: which may be read, and how they are one text of `scenes.parquet`, with their common folder stored once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

DEPTHS = (1, 2)
"""The folder is directly above the files, then one above (`R10m/…`, `R20m/…` beside each other)."""

SCHEMES = ("http", "https", "s3", "gs", "az")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/", re.IGNORECASE)


def href_problem(href: str, *, local: bool) -> str | None:
    """What speaks against reading an href; None if nothing does.

    GDAL takes XML, `/vsi…` and other prefixes as instructions to read any file of this machine or to ask any server, so a catalog
    may only name files by a path or by a web address.

    Args:
        href: of a file.
        local: the catalog lies on this machine and may name files of it.
    """
    text = href.strip().lstrip("\ufeff")
    if text.startswith("<"):
        return "has XML in place of an href"
    if text.lower().startswith("/vsi"):
        return f"has an href with the prefix {text.split('/')[1]} of GDAL, which may read anything"
    if match := _SCHEME.match(text):
        scheme = match[1].lower()
        allowed = (*SCHEMES, "file") if local else SCHEMES
        return None if scheme in allowed else f"has an href with {scheme}:, which is none of {', '.join(allowed)}"
    return None if local else "has an href that is a path of this machine, in a catalog that is not on it"


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
