"""The promotion policy, `mlflow/promotion.yaml`: typed, frozen, and checked before any work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from caco_assets.core.errors import UserError
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


class Latency(_Frozen):
    """What an embedding may cost: processor time of one thread, so that other programs on the machine do not decide."""

    max_ms: float = Field(default=500.0, gt=0)
    """Milliseconds per image at the encoder's own input side; the quickest of all rounds counts."""
    max_ratio: float | None = Field(default=1.5, gt=0)
    """Of the champion's time, measured in turns; fails only when surely above (see `latency.slower_than`). None: no comparison."""
    images: int = Field(default=8, ge=1, le=256)
    """In one batch."""
    rounds: int = Field(default=11, ge=5, le=101)
    """Each measures both encoders once."""


class Size(_Frozen):
    """What a serving machine must hold."""

    max_mb: float = Field(default=400.0, gt=0)
    """Of `encoder.safetensors`, in units of 10^6 bytes."""
    max_parameters: int | None = Field(default=None, ge=1)
    """Weights that are learnt; None: the file's size alone counts."""


class Drift(_Frozen):
    """The data that trained it must not have drifted from the vintage before, or the drift must have been accepted."""

    when_not_measured: Literal["allow", "refuse"] = "allow"
    """A first vintage has nothing to be compared with."""


class RoundTrip(_Frozen):
    """The registered preprocessing must give the tensor that the trained encoder gave, bit for bit, on a stored picture."""

    when_not_stored: Literal["allow", "refuse"] = "refuse"
    """A version that carries neither the picture nor a hash of what becomes of it was not registered by this package."""


Overridable = Literal["main", "baseline", "others", "latency", "size", "drift"]
"""Rules that a person may set aside. The others say that the artifact is not sound, or not the one that was judged."""


class Override(_Frozen):
    """Who may promote a version against a rule, and against which."""

    allowed: tuple[str, ...] = ()
    """Names of users on the machine that decides; none: nobody."""
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
        policy = Policy.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise UserError(f"{path}: {key}: unknown key; allowed: {', '.join(_allowed(problem['loc'][:-1]))}") from error
        shown = "" if problem["type"] == "missing" else f"={problem['input']!r}"
        raise UserError(f"{path}: {key}{shown}: {problem['msg']}") from error
    _one_label_an_image(path, policy, settings)
    return policy


def _one_label_an_image(path: Path, policy: Policy, settings: Settings) -> None:
    """The main rows of the profile have a class for each image: the rule against collapse looks at features of whole images."""
    from caco_assets.downstream.tasks import find_task

    for index, rule in enumerate(policy.main):
        wanted = settings.downstream.tasks.get(rule.row)
        if wanted is not None and find_task(wanted.task).dense:
            raise UserError(
                f"{path}: main.{index}.row={rule.row}: has a class for each pixel; name a row of image labels, whose features can "
                "be seen to collapse"
            )


def _allowed(place: tuple[int | str, ...]) -> list[str]:
    """Keys of the part of the policy at `place`."""
    part: Any = Policy.model_fields[str(place[0])].annotation if place else Policy
    return list((MainRule if place and place[0] == "main" else part).model_fields)
