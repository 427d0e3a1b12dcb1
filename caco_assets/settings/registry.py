"""Settings of the room `registry`: the model name, its policy, notifications and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from caco_assets.settings.frozen import Frozen


class Registry(Frozen):
    """Which version serves?"""

    model: str = "caco-resnet18"
    policy: Path = Path("mlflow/promotion.yaml")
    """Relative to the home folder."""
    tracking_uri: str | None = None
    """An MLflow server; none: SQLite and files in the workspace."""
    notify: tuple[str, ...] = ()
    """A command and its arguments, run without a shell after each decision and move: JSON on its standard input. None: nobody."""
    notify_timeout_s: float = Field(default=30.0, gt=0)
    """It is stopped after so long; nothing that has happened is undone."""
    forms: tuple[Literal["timm", "exported", "onnx"], ...] = ("timm", "exported", "onnx")
    """What a champion is exported to (`exported`: torch.export); the encoder itself and the STAC item always are."""
    data_licence: str | None = None
    """Licence of the training data, for the model card; none: what is known of the kind of source."""
