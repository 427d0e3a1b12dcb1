"""The promotion policy, `mlflow/promotion.yaml`: typed, frozen, and checked before any work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_yaml
from caco_assets.settings import Settings


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MainRule(_Frozen):
    """A row that may decide."""

    row: str
    """Name of the row in the profile's `downstream.tasks`."""
    protocol: Literal["paper", "clean"] = "clean"
    method: str = "linear_probe"
    size: int = Field(default=64, ge=1)
    margin: float = Field(default=0.0, ge=0, lt=1)
    """The lower bound of the gain over the champion must exceed this."""


class Others(_Frozen):
    """No other row may get significantly worse."""

    protocol: Literal["paper", "clean"] = "clean"
    method: str = "linear_probe"
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """A row fails if it is worse by more than this and its 95 % interval lies below 0: significantly, and by enough to matter."""


class Baseline(_Frozen):
    """The candidate must beat an untrained encoder of the same architecture on the main row."""

    margin: float = Field(default=0.0, ge=0, lt=1)


class NotCollapsed(_Frozen):
    """Features must differ between images."""

    min_effective_rank: float = Field(default=4.0, ge=1)
    """exp of the entropy of the normalized singular values of the centred features (Roy and Vetterli 2007)."""
    min_spread: float = Field(default=0.01, ge=0)
    """Root mean square distance from the mean feature, as a share of the mean feature's length."""


class Latency(_Frozen):
    """What an embedding may cost: CPU time of one thread, so that the load of the machine does not decide."""

    max_ms: float = Field(default=500.0, gt=0)
    """Milliseconds per image at the encoder's own input size; the fastest round counts."""
    max_ratio: float | None = Field(default=1.5, gt=0)
    """Of the champion's time, measured in turns; fails only if significantly above (`latency.median_interval`). None: no limit."""
    images: int = Field(default=8, ge=1, le=256)
    """In one batch."""
    rounds: int = Field(default=11, ge=5, le=101)
    """Each measures both encoders once."""


class Size(_Frozen):
    """What a serving machine must store."""

    max_mb: float = Field(default=400.0, gt=0)
    """Of `encoder.safetensors`, 10^6 bytes."""
    max_parameters: int | None = Field(default=None, ge=1)
    """Learned weights; None: only the file size counts."""


class Drift(_Frozen):
    """The training data must not have drifted from the previous vintage, unless the drift was accepted."""

    when_not_measured: Literal["allow", "refuse"] = "allow"
    """A first vintage has no reference."""


class RoundTrip(_Frozen):
    """The registered preprocessing must reproduce the trained encoder's tensor of a stored image, bit for bit."""

    when_not_stored: Literal["allow", "refuse"] = "refuse"
    """A version with neither the image nor a hash of its tensor was not registered by this package."""


Overridable = Literal["main", "baseline", "others", "latency", "size", "drift"]
"""Rules that a user may override. The others say that the artifact is unusable, or not the one that was evaluated."""


class Override(_Frozen):
    """Who may override which rules."""

    allowed: tuple[str, ...] = ()
    """Names of users on the machine that decides; empty: no user."""
    rules: tuple[Overridable, ...] = ("main", "others", "latency", "size", "drift")


class Policy(_Frozen):
    """All rules; a challenger must pass every one."""

    main: tuple[MainRule, ...] = Field(min_length=1)
    """The first whose row is measured decides."""
    others: Others = Others()
    baseline: Baseline = Baseline()
    not_collapsed: NotCollapsed = NotCollapsed()
    latency: Latency = Latency()
    size: Size = Size()
    drift: Drift = Drift()
    round_trip: RoundTrip = RoundTrip()
    override: Override = Override()
    draws: int = Field(default=10_000, ge=1000)
    """Resamples of the paired bootstrap."""


def read_policy(settings: Settings) -> Policy:
    """Read the policy of a profile.

    Raises:
        UserError: no such file, not YAML, an unknown key, or a value that is not allowed.
    """
    path = settings.home / settings.registry.policy
    if not path.exists():
        raise UserError(f"registry.policy={settings.registry.policy}: {path} does not exist; copy mlflow/promotion.yaml there")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: a policy is a mapping with the keys {', '.join(Policy.model_fields)}")
    try:
        policy = Policy.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise UserError(f"{path}: {key}: unknown key; allowed: {', '.join(_allowed(problem['loc'][:-1]))}") from error
        shown = "" if problem["type"] == "missing" else f"={problem['input']!r}"
        raise UserError(f"{path}: {key}{shown}: {problem['msg']}") from error
    _require_image_labels(path, policy, settings)
    return policy


def _require_image_labels(path: Path, policy: Policy, settings: Settings) -> None:
    """Refuse a main row with pixel labels: the collapse rule looks at features of whole images."""
    from caco_assets.downstream.tasks import find_task

    for index, rule in enumerate(policy.main):
        wanted = settings.downstream.tasks.get(rule.row)
        if wanted is not None and find_task(wanted.task).dense:
            raise UserError(
                f"{path}: main.{index}.row={rule.row}: has a class for each pixel; name a row with image labels: the collapse "
                "rule needs features of whole images"
            )


def _allowed(place: tuple[int | str, ...]) -> list[str]:
    """Keys of the section of the policy at `place`."""
    part: Any = Policy.model_fields[str(place[0])].annotation if place else Policy
    return list((MainRule if place and place[0] == "main" else part).model_fields)
