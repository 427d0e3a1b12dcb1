"""Accepts the last release's names of settings, with a warning, for one release."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

KEYS = {
    "automation.look_cron": "drift_check_cron",
    "downstream.fine_tune.optimiser": "optimizer",
    "downstream.fine_tune_twin.optimiser": "optimizer",
}
"""Path of the old key in the settings tree → new key of the same section."""
VALUES = {"imagery.source.kind": {"published": "seco_layout"}}
"""Key → old value → new value."""


def current_names(values: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """Settings with every renamed key and value under its new name.

    Args:
        values: the settings tree, or a part of it.
        warn: log one line per old name and process; False for files that an earlier release wrote.
    """
    current = copy.deepcopy(dict(values))
    for path, new in KEYS.items():
        section, old = _find(current, path)
        # with both names present, the old one stays and is reported as an unknown key
        if section is not None and old in section and new not in section:
            section[new] = section.pop(old)
            if warn:
                _warn(path, f"{path.rpartition('.')[0]}.{new}")
    for path, names in VALUES.items():
        section, key = _find(current, path)
        if section is not None and (old := section.get(key)) in names:
            section[key] = names[old]
            if warn:
                _warn(f"{path}={old}", f"{path}={names[old]}")
    return current


def _find(values: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, str]:
    """The section at a path, if it exists, and the last part of the path."""
    *sections, key = path.split(".")
    found: Any = values
    for name in sections:
        found = found.get(name) if isinstance(found, dict) else None
    return (found if isinstance(found, dict) else None), key


@cache
def _warn(old: str, new: str) -> None:
    key, equals, value = old.partition("=")
    variable = f"CACO_{key.upper().replace('.', '__')}"
    shown = f"{variable}{equals}{value}" if variable in os.environ else old
    wanted = f"CACO_{new.partition('=')[0].upper().replace('.', '__')}{equals}{new.partition('=')[2]}" if shown != old else new
    logger.warning(f"{shown} is now {wanted}; the old name works until the next release")
