"""Model code of a registered encoder: MLflow copies this file into the model and runs it to load one; nothing is pickled."""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from caco_assets.pretraining.encoder import ARCHIVE, Encoder, PixelFormat


class PackagedEncoder(PythonModel):
    """Pixels in, features out; the preprocessing is inside."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the safetensors."""
        self.encoder = Encoder.load(Path(context.artifacts["encoder"]))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """float32 (B, D) features of integer pixels (B, bands, H, W).

        Args:
            context: unused.
            model_input: digital numbers.
            params: `bands`, `reflectance_per_dn` and `offset` describe the numbers; `size` is the side of the network's input,
                pixels. MLflow fills in the defaults of the model's signature.
        """
        params = params or {}
        wanted = self.encoder.preprocessing
        fmt = PixelFormat(
            tuple(params.get("bands", wanted.bands)),
            params.get("reflectance_per_dn", ARCHIVE.reflectance_per_dn),
            params.get("offset", ARCHIVE.offset),
        )
        return self.encoder.features(np.asarray(model_input), fmt, params.get("size", wanted.size))


set_model(PackagedEncoder())
