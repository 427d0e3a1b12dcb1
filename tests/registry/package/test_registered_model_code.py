"""Registered models stay loadable: each holds a copy of the model code of its time, which imports this package."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mlflow
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder
from caco_assets.registry.package.mlflow_model import package, probe

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

FIRST_MODEL_CODE = """
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from caco_assets.pretraining.encoder import ARCHIVE, Encoder, PixelFormat


class PackagedEncoder(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        self.encoder = Encoder.load(Path(context.artifacts["encoder"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        said = params or {}
        wanted = self.encoder.preprocessing
        fmt = PixelFormat(
            tuple(said.get("bands", wanted.bands)),
            said.get("reflectance_per_dn", ARCHIVE.reflectance_per_dn),
            said.get("offset", ARCHIVE.offset),
        )
        return self.encoder.features(np.asarray(model_input), fmt, said.get("size", wanted.size))


set_model(PackagedEncoder())
"""
"""As in the versions that the first release registered; do not edit."""


def test_a_model_with_the_model_code_of_the_first_release_loads(encoder_dir, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    encoder = package(encoder_dir(0), folder)
    (code,) = folder.rglob("pyfunc_model.py")
    code.write_text(FIRST_MODEL_CODE)
    model = mlflow.pyfunc.load_model(str(folder))
    pixels = probe(encoder)
    found = model.predict(pixels, params={"bands": list(encoder.preprocessing.bands)})
    fmt = replace(ARCHIVE, bands=encoder.preprocessing.bands)
    np.testing.assert_array_equal(found, Encoder.load(encoder_dir(0)).features(pixels, fmt))
