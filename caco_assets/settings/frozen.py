"""The base class of settings sections: frozen, with unknown keys as errors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A section of the settings."""

    # Dumps enter fingerprints, records and MLflow parameters, so a renamed field keeps its original name there (its serialization
    # alias): a new name would invalidate all existing products. `by_alias=False` gives the current names.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)
