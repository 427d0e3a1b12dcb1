"""The configuration of one training run, as an object and as the CONFIG file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_yaml
from caco_assets.settings import Pretraining
from caco_assets.settings.frozen import Frozen

# settings that affect the speed of training, not its result
SPEED_ONLY = {
    "device",
    "threads",
    "checkpoint_every",
    "checkpoint_minutes",
    "launcher",
    "processes",
    "nodes",
    "restarts",
    "pack_bands",
    "pack_on_gpu",
}

# the data of the run names the parent's weights (`stage.encoder_inputs`)
NAMED_ELSEWHERE = {"warm_start"}


def training_config(options: Pretraining, seed: int) -> dict[str, Any]:
    """All settings that decide the result, JSON-able: `recipe` in `encoder.json` and in checkpoints."""
    return {**options.model_dump(mode="json", exclude=SPEED_ONLY | NAMED_ELSEWHERE), "seed": seed}


class RunConfig(Frozen):
    """Config for `python -m caco_assets.pretraining.train CONFIG`: JSON or YAML, paths relative to the working directory."""

    pack: Path
    """Folder of the training pack: see `pack.build`."""
    target: Path
    """Folder of the encoder, its metrics and, during training, its checkpoints."""
    seed: int = 0
    """Seed of all random numbers."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Description of the training data, for `encoder.json`."""
    pretraining: Pretraining = Pretraining()
    """The profile's section."""
    probe: Path | None = None
    """The probe set that scores the encoder every `pretraining.probe_every` epochs: see `online_probe`."""
    parent: Path | None = None
    """Folder of the encoder whose weights training starts from, named in `data`; None: random weights from the seed."""
    truth: Path | None = None
    """Table of true change, for metrics only: the weights do not depend on it (see `change.ground_truth`)."""
    starter: tuple[str, int] | None = None
    """Machine and process id that started the training: training stops when that process has ended."""

    @property
    def training_config(self) -> dict[str, Any]:
        """See `training_config`."""
        return training_config(self.pretraining, self.seed)


def read_config(path: Path) -> RunConfig:
    """Read and check a CONFIG file.

    Raises:
        UserError: the file is missing, not JSON or YAML, or has an unknown key or an invalid value.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: a mapping with {', '.join(RunConfig.model_fields)} is wanted, got {type(values).__name__}")
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise UserError(_explained(path, error)) from error


def _explained(path: Path, error: ValidationError) -> str:
    problem = error.errors()[0]
    where, value = problem["loc"], problem["input"]
    field = ".".join(str(part) for part in where)
    if problem["type"] == "missing":
        return f"{path}: {field} is missing; keys: {', '.join(RunConfig.model_fields)}"
    shown = field if isinstance(value, dict) or not field else f"{field}={value!r}"
    if problem["type"] == "extra_forbidden":
        allowed = Pretraining.model_fields if where[0] == "pretraining" else RunConfig.model_fields
        return f"{path}: {shown}: unknown key; allowed: {', '.join(allowed)}"
    return f"{path}: {shown}: {problem['msg'].removeprefix('Value error, ')}"
