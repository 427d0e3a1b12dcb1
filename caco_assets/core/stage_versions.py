"""Output versions of the stages, read from `stage_versions.yaml`."""

from functools import cache
from pathlib import Path

import yaml


@cache
def _table() -> dict[str, str]:
    return yaml.safe_load(Path(__file__).with_name("stage_versions.yaml").read_text())


def recipe(stage: str) -> str:
    """Version of the stage."""
    return _table()[stage]


def recipes() -> dict[str, str]:
    """Stage → its version."""
    return dict(_table())
