"""The section `versions`: storage of data versions."""

from __future__ import annotations

from pydantic import Field, model_validator

from caco_assets.settings.frozen import Frozen


class Versions(Frozen):
    """Where DVC stores data versions."""

    remote: str | None = None
    """A folder, `s3://bucket/folder` or another DVC address; none: the folder set in `.dvc/config`, in the workspace."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://")
    """Address of the S3 store, if it is not Amazon's."""

    @model_validator(mode="after")
    def _endpoint_of_a_store(self) -> Versions:
        if self.endpoint and not (self.remote or "").startswith("s3://"):
            raise ValueError(f"endpoint={self.endpoint}: is of use for a remote in S3 alone; set remote to s3://bucket/folder")
        return self
