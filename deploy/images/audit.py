#!/usr/bin/env python3
"""Finds known vulnerabilities of the locked packages in a local copy of the advisories; queries no service.

    curl -O https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip      # on a machine with network access; some 30 MB
    .venv/bin/python deploy/images/audit.py all.zip [requirements.lock]

Prints one line per vulnerability; exit status 1 if there is one, 2 if nothing could be looked up.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packages import entries, normal
from packaging.version import InvalidVersion, Version

LEAST = 1000
"""Fewer advisories than this cannot be a complete copy."""


def pinned(lock: str) -> dict[str, str]:
    """Package → version."""
    return {name: text.split("==")[1].split()[0].split(";")[0] for name, text in entries(lock).items()}


def advisories(copy: Path) -> Iterator[Mapping[str, Any]]:
    """All advisories of an OSV export that have not been withdrawn."""
    with zipfile.ZipFile(copy) as archive:
        for name in archive.namelist():
            if name.endswith(".json") and not (found := json.loads(archive.read(name))).get("withdrawn"):
                yield found


def concerns(affected: Mapping[str, Any], version: str) -> bool:
    """Whether one `affected` entry of an advisory covers a version: in its list, or between two of its events."""
    if version in affected.get("versions", ()):
        return True
    here = Version(version)
    for span in affected.get("ranges", ()):
        if span["type"] != "ECOSYSTEM":
            continue
        inside = False
        for event in span["events"]:
            kind, edge = next(iter(event.items()))
            try:
                passed = edge == "0" or (here > Version(edge) if kind == "last_affected" else here >= Version(edge))
            except InvalidVersion:
                continue
            if passed:
                inside = kind == "introduced"
        if inside:
            return True
    return False


def vulnerabilities(lock: str, known: Iterable[Mapping[str, Any]]) -> tuple[list[str], int]:
    """One line per vulnerability, sorted; and how many advisories were read."""
    versions, found, read = pinned(lock), [], 0
    for advisory in known:
        read += 1
        for affected in advisory.get("affected", ()):
            package = affected.get("package", {})
            name = normal(package.get("name", ""))
            if package.get("ecosystem") == "PyPI" and name in versions and concerns(affected, versions[name]):
                names = " ".join([advisory["id"], *advisory.get("aliases", ())])
                found.append(f"{name} {versions[name]}: {names}: {advisory.get('summary', 'no summary')}")
                break
    return sorted(found), read


def main() -> int:
    """Command line."""
    if not 2 <= len(sys.argv) <= 3 or not zipfile.is_zipfile(sys.argv[1]):
        sys.stderr.write("usage: audit.py ALL.ZIP [requirements.lock]; ALL.ZIP is OSV's export for PyPI\n")
        return 2
    lock = Path(sys.argv[2] if len(sys.argv) == 3 else Path(__file__).parents[2] / "requirements.lock").read_text()
    found, read = vulnerabilities(lock, advisories(Path(sys.argv[1])))
    if read < LEAST:
        sys.stderr.write(f"audit: {sys.argv[1]} has only {read} advisories: not a copy of OSV's export; nothing was looked up\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.stdout.write(f"{len(pinned(lock))} packages against {read} advisories: {len(found)} known vulnerabilities\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
