"""Prints the part of a lock file that given packages need: `python packages.py requirements.lock NAME … [--without NAME …]`.

The lock names the dependents of each package (`# via`), so the dependencies of a few packages are found without querying an index,
and every pin and hash stays as compiled. Packages needed only by `--without` packages are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_ENTRY = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)
_DEPENDENT = re.compile(r"^    #(?: via)?\s+(\S+)$", re.MULTILINE)


def normal(name: str) -> str:
    """The name as the lock writes it: without extras, in lower case, with hyphens."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ]", name, maxsplit=1)[0]).lower()


def entries(lock: str) -> dict[str, str]:
    """Package → its lines in the lock."""
    parts = [part for part in _ENTRY.split(lock) if re.match(r"[A-Za-z0-9]", part)]
    return {normal(part.partition("==")[0]): part for part in parts}


def needs(lock: dict[str, str]) -> dict[str, set[str]]:
    """Package → its direct dependencies."""
    found: dict[str, set[str]] = {name: set() for name in lock}
    for name, text in lock.items():
        for dependent in _DEPENDENT.findall(text):
            if normal(dependent) in found:
                found[normal(dependent)].add(name)
    return found


def closure(lock: dict[str, str], wanted: list[str], without: list[str]) -> list[str]:
    """Names of the wanted packages and all their dependencies, except `without`.

    Raises:
        SystemExit: a name is not in the lock.
    """
    if unknown := sorted({*wanted, *without} - set(lock)):
        raise SystemExit(f"{', '.join(unknown)}: not in the lock; compile the lock again, or correct the name")
    needed, left, kept = needs(lock), [name for name in wanted if name not in without], set[str]()
    while left:
        if (name := left.pop()) not in kept:
            kept.add(name)
            left += [each for each in needed[name] if each not in without]
    return sorted(kept)


def main(arguments: list[str]) -> None:
    """Write the part of the lock to standard output."""
    path, *names = arguments
    cut = names.index("--without") if "--without" in names else len(names)
    lock = entries(Path(path).read_text())
    for name in closure(lock, [normal(each) for each in names[:cut]], [normal(each) for each in names[cut + 1 :]]):
        sys.stdout.write(lock[name])


if __name__ == "__main__":
    main(sys.argv[1:])
