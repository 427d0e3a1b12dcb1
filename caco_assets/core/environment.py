"""Summary of a run's software environment, for comparing runs."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def environment() -> dict[str, str]:
    """`python`, `torch`: versions; `packages`: sha256 of the installed packages; `lock`: of the checkout's lock file, if any.

    Versions come from package metadata; nothing is imported.
    """
    installed = sorted({f"{found.name}=={found.version}" for found in metadata.distributions()})
    words = {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "packages": hashlib.sha256("\n".join(installed).encode()).hexdigest(),
    }
    lock = Path(__file__).parents[2] / "requirements.lock"
    return words | ({"lock": hashlib.sha256(lock.read_bytes()).hexdigest()} if lock.exists() else {})


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
