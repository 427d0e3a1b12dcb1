"""The promotion policy, `mlflow/promotion.yaml`: typed, frozen, and checked before any work starts."""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from caco_assets.errors import UserError
from caco_assets.settings import Settings


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MainRule(_Frozen):
    """One figure that may decide."""

    row: str
    """Name of the row in the profile's `downstream.tasks`."""
    protocol: Literal["paper", "clean"] = "clean"
    method: str = "linear_probe"
    size: int = Field(default=64, ge=1)
    margin: float = Field(default=0.0, ge=0, lt=1)
    """The lower end of the gain over the champion must be above this."""


class Others(_Frozen):
    """No other row may get worse."""

    protocol: Literal["paper", "clean"] = "clean"
    method: str = "linear_probe"
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """A row fails when it is worse by more than this and its 95 % interval lies below 0: surely, and by more than a trifle."""


class Baseline(_Frozen):
    """An encoder of the same architecture that has learnt nothing must be beaten, on the main row."""

    margin: float = Field(default=0.0, ge=0, lt=1)


class NotCollapsed(_Frozen):
    """Features must differ between images."""

    min_effective_rank: float = Field(default=4.0, ge=1)
    """exp of the entropy of the normalised singular values of the centred features (Roy and Vetterli 2007)."""
    min_spread: float = Field(default=0.01, ge=0)
    """Root mean square distance from the mean feature, as a share of the mean feature's length."""


class Policy(_Frozen):
    """All rules; a challenger must pass every one."""

    main: tuple[MainRule, ...] = Field(min_length=1)
    """The first whose row is measured decides."""
    others: Others = Others()
    baseline: Baseline = Baseline()
    not_collapsed: NotCollapsed = NotCollapsed()
    draws: int = Field(default=10_000, ge=1000)
    """Resamples of the paired bootstrap."""


def read_policy(settings: Settings) -> Policy:
    """The policy that the profile names.

    Raises:
        UserError: no such file, not YAML, an unknown key, or a value that is not allowed.
    """
    path = settings.home / settings.registry.policy
    if not path.is_file():
        raise UserError(f"registry.policy={settings.registry.policy}: {path} does not exist; copy mlflow/promotion.yaml there")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a policy is a mapping with the keys {', '.join(Policy.model_fields)}")
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise UserError(f"{path}: {key}: unknown key; allowed: {', '.join(_allowed(problem['loc'][:-1]))}") from error
        shown = "" if problem["type"] == "missing" else f"={problem['input']!r}"
        raise UserError(f"{path}: {key}{shown}: {problem['msg']}") from error


def _allowed(place: tuple[int | str, ...]) -> list[str]:
    """Keys of the part of the policy at `place`."""
    parts: dict[Any, type[BaseModel]] = {"main": MainRule, "others": Others, "baseline": Baseline, "not_collapsed": NotCollapsed}
    return list((parts[place[0]] if place else Policy).model_fields)
