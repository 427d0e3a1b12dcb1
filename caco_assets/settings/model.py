"""`Settings`: all sections of a profile, checked together."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from caco_assets.settings.automation import Automation
from caco_assets.settings.data_versions import Versions
from caco_assets.settings.downstream import Downstream
from caco_assets.settings.imagery import Imagery
from caco_assets.settings.paths import Paths
from caco_assets.settings.pretraining import Pretraining
from caco_assets.settings.registry import Registry
from caco_assets.settings.renamed import current_names
from caco_assets.settings.sampling import Sampling
from caco_assets.settings.validation import Validation


class Settings(BaseSettings):
    """All settings of a run. Frozen; a wrong key or value is an error before work starts."""

    model_config = SettingsConfigDict(env_prefix="CACO_", env_nested_delimiter="__", frozen=True, extra="forbid")

    profile: str
    home: Path
    """Folder of `dvc.yaml`, `mlflow/` and `workspace/`: moving it moves all state (`CACO_HOME`)."""
    seed: int = 0
    vintage: str = Field(default="2026-11", pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    """The late period ends with this month."""
    gap_years: int = Field(default=4, ge=1, le=100)
    """Years by which the early period precedes the late one."""
    sampling: Sampling = Sampling()
    imagery: Imagery = Imagery()
    validation: Validation = Validation()
    pretraining: Pretraining = Pretraining()
    downstream: Downstream = Downstream()
    registry: Registry = Registry()
    versions: Versions = Versions()
    automation: Automation = Automation()

    @model_validator(mode="after")
    def _rooms_agree(self) -> Settings:
        absent = [band for band in self.pretraining.packed_bands if band not in self.imagery.bands]
        if absent:
            field = "bands" if self.pretraining.pack_bands is None else "pack_bands"
            raise ValueError(
                f"pretraining.{field}: {', '.join(absent)} is not among imagery.bands ({', '.join(self.imagery.bands)}); "
                "add it there"
            )
        if self.imagery.period_months > 12 * self.gap_years:
            raise ValueError(
                f"imagery.period_months={self.imagery.period_months}: the two periods overlap with gap_years={self.gap_years}; "
                f"at most {12 * self.gap_years} months"
            )
        tasks, wanted = self.downstream.tasks, self.pretraining.probe_task
        if wanted is not None and wanted not in tasks:
            raise ValueError(f"pretraining.probe_task={wanted}: no row of downstream.tasks ({', '.join(tasks) or 'it is empty'})")
        if self.automation.retrain_on_drift == "always" and self.validation.drift.severity == "blocking":
            raise ValueError(
                "automation.retrain_on_drift=always: with validation.drift.severity=blocking every run that it asks for would stop "
                "before training; set that to warning (the promotion policy then has the last word), or this to accepted"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the profile, except for the two variables that chose the profile (see `load_settings`)."""

        def environment() -> dict[str, Any]:
            values = {key: value for key, value in env_settings().items() if key not in ("profile", "home")}
            return current_names(values)

        return (environment, init_settings)  # pyright: ignore[reportReturnType]

    @cached_property
    def paths(self) -> Paths:
        """Paths of this profile's files."""
        return Paths(home=self.home, workspace=self.home / "workspace", profile=self.profile)

    @property
    def shards(self) -> int:
        """Number of shards for `sampling.places`."""
        return -(-self.sampling.places // self.sampling.places_per_shard)
