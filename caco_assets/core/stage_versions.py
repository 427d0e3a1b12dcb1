"""Output versions of the stages, read from `stage_versions.yaml`."""

from functools import cache
from pathlib import Path

import yaml


@cache
def _table() -> dict[str, str]:
    return yaml.safe_load(Path(__file__).with_name("stage_versions.yaml").read_text())


def stage_version(stage: str) -> str:
    """Version of the code that makes the stage's product."""
    return _table()[stage]


def stage_versions() -> dict[str, str]:
    """Stage → version of the code that makes its product."""
    return dict(_table())
