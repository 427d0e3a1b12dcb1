"""One pattern for the names that a user gives to profiles, score rows and encoders.

They become folders, stages of `dvc.yaml`, metrics and experiments of MLflow, and parts of addresses.
"""

from __future__ import annotations

import re
from typing import Annotated

import yaml
from pydantic import AfterValidator

LONGEST = 64
"""Characters; file systems take 255 bytes and MLflow 250 characters, of which suffixes need some."""
RESERVED = ("dvc", "logs", "mlflow", "dagster")
"""The workspace's own folders, which lie beside those of the profiles."""
ALLOWED = (
    f"a name has at most {LONGEST} letters (a to z), digits, dots, dashes and underscores, and begins with a letter or a digit"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LIKE_A_NUMBER = re.compile(r"[0-9][0-9A-Fa-fxXoO._-]*")
"""More than the numbers of any version of YAML: 0o17, 1_000, 1e-3, 1.50."""
_PLAIN_NUMBER = re.compile(r"(0|[1-9][0-9]*)(-[0-9]+)*")
_MODEL = re.compile(r"""[^\x00-\x1f\x7f/:@%"'<>|\\]+""")


def why_not(name: str) -> str | None:
    """What is wrong with a name; None: nothing."""
    return None if _NAME.fullmatch(name) and len(name) <= LONGEST else ALLOWED


def why_not_profile(name: str) -> str | None:
    """What is wrong with the name of a profile; None: nothing."""
    if (wrong := why_not(name)) is not None:
        return wrong
    if name.lower() in RESERVED:
        return f"the workspace has a folder of this name for itself (reserved: {', '.join(RESERVED)}); choose another name"
    if not _is_a_word(name):
        return "in dvc.yaml it would be a number, a date or a truth value; choose a name with other letters"
    return None


def _is_a_word(name: str) -> bool:
    """Whether every version of YAML gives this word back."""
    if _LIKE_A_NUMBER.fullmatch(name) and not _PLAIN_NUMBER.fullmatch(name):
        return False
    try:
        value = yaml.safe_load(name)
    except ValueError:
        # a date that does not exist
        return False
    return not isinstance(value, bool) and str(value) == name


def _check(name: str) -> str:
    if (wrong := why_not(name)) is not None:
        raise ValueError(wrong)
    return name


def _check_model(name: str) -> str:
    if not _MODEL.fullmatch(name) or len(name) > 4 * LONGEST:
        raise ValueError(
            "MLflow's addresses (models:/NAME@champion) allow no name that is empty or holds / : @ % \" ' < > | \\ or a line break"
        )
    return name


Name = Annotated[str, AfterValidator(_check)]
"""Name of a score row or an imported encoder."""
ModelName = Annotated[str, AfterValidator(_check_model)]
"""Name of a registered model; other teams may have named it."""
