"""The base of every section: frozen, and an unknown key is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A section of the settings."""

    # Dumps enter fingerprints, records and MLflow parameters, so a renamed field keeps its first name there (its serialization
    # alias): another one would make everybody's products again. `by_alias=False` gives the present names.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)
