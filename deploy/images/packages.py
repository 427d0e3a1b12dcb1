"""Prints the part of a lock file that some packages need: `python packages.py requirements.lock NAME … [--without NAME …]`.

The lock says of each package who asked for it (`# via`), so what a few of them need is found without asking any index, and every
pin and hash stays as it was compiled. What is asked for by `--without` packages alone stays out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_ENTRY = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)
_ASKED = re.compile(r"^    #(?: via)?\s+(\S+)$", re.MULTILINE)


def normal(name: str) -> str:
    """The name as the lock writes it: without extras, in small letters, with hyphens."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ]", name, maxsplit=1)[0]).lower()


def entries(lock: str) -> dict[str, str]:
    """Package → its lines in the lock."""
    parts = [part for part in _ENTRY.split(lock) if re.match(r"[A-Za-z0-9]", part)]
    return {normal(part.partition("==")[0]): part for part in parts}


def needs(lock: dict[str, str]) -> dict[str, set[str]]:
    """Package → the packages that it asks for."""
    found: dict[str, set[str]] = {name: set() for name in lock}
    for name, text in lock.items():
        for asker in _ASKED.findall(text):
            if normal(asker) in found:
                found[normal(asker)].add(name)
    return found


def closure(lock: dict[str, str], wanted: list[str], without: list[str]) -> list[str]:
    """Names of the wanted packages and of all that they need, but for `without`.

    Raises:
        SystemExit: a name is not in the lock.
    """
    if unknown := sorted({*wanted, *without} - set(lock)):
        raise SystemExit(f"{', '.join(unknown)}: not in the lock; compile it again, or correct the name")
    asks, left, kept = needs(lock), [name for name in wanted if name not in without], set[str]()
    while left:
        if (name := left.pop()) not in kept:
            kept.add(name)
            left += [each for each in asks[name] if each not in without]
    return sorted(kept)


def main(arguments: list[str]) -> None:
    """Write the part to standard output."""
    path, *names = arguments
    cut = names.index("--without") if "--without" in names else len(names)
    lock = entries(Path(path).read_text())
    for name in closure(lock, [normal(each) for each in names[:cut]], [normal(each) for each in names[cut + 1 :]]):
        sys.stdout.write(lock[name])


if __name__ == "__main__":
    main(sys.argv[1:])
