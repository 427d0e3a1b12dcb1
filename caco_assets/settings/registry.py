"""Settings of the room `registry`: the model name, its policy, notifications and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from caco_assets.settings.frozen import Frozen
from caco_assets.settings.names import ModelName


class Registry(Frozen):
    """Model name, tracking server, notifications and exports."""

    model: ModelName = "caco-resnet18"
    policy: Path = Path("mlflow/promotion.yaml")
    """Promotion policy file, relative to the home folder."""
    tracking_uri: str | None = None
    """An MLflow server; none: SQLite and files in the workspace."""
    notify: tuple[str, ...] = ()
    """A command and its arguments, run without a shell after each decision and move, with JSON on standard input; empty: none."""
    notify_timeout_s: float = Field(default=30.0, gt=0)
    """Time limit of the notification command; stopping it undoes nothing."""
    forms: tuple[Literal["timm", "exported", "onnx"], ...] = ("timm", "exported", "onnx")
    """Export formats of a champion (`exported`: torch.export); the encoder itself and the STAC item are always exported."""
    data_licence: str | None = None
    """Licence of the training data, for the model card; none: the known licence of the source."""
