"""Packages an encoder as an MLflow model of safetensors and JSON, and loads it back bit for bit; nothing is pickled."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import caco_assets
from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_yaml
from caco_assets.pretraining.encoder.encoder import ARCHIVE, DESCRIPTION, WEIGHTS, Encoder
from caco_assets.registry.package.preprocessing_check import ROUND_TRIP, same_tensor, write_round_trip
from caco_assets.registry.versions import IDENTITY, find
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

_FILES = (WEIGHTS, DESCRIPTION)
# Imports of the model code besides this package; exact versions, because features must not change.
_LIBRARIES = ("mlflow", "numpy", "safetensors", "timm", "torch")
_PROBE_SIDE = 32


def package(encoder_dir: Path, target: Path) -> Encoder:
    """Write an MLflow model folder for an encoder folder.

    Args:
        encoder_dir: `encoder.safetensors` and `encoder.json`.
        target: folder to create.

    Returns:
        The encoder, loaded and checked.

    Raises:
        UserError: no valid encoder there.
    """
    from mlflow.pyfunc import save_model

    encoder = Encoder.load(encoder_dir)
    with tempfile.TemporaryDirectory() as scratch:
        # only the two files: metrics and figures of the training belong to its run
        source = Path(scratch) / "encoder"
        source.mkdir()
        for name in _FILES:
            shutil.copyfile(encoder_dir / name, source / name)
        save_model(
            path=str(target),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"encoder": str(source), "round_trip": str(write_round_trip(encoder, Path(scratch) / ROUND_TRIP))},
            signature=_signature(encoder),
            input_example=probe(encoder)[:1],
            pip_requirements=[f"caco_assets=={caco_assets.__version__}", *(f"{name}=={installed(name)}" for name in _LIBRARIES)],
        )
    return encoder


def upload(tracking: Tracking, run_id: str, folder: Path, name: str) -> tuple[str, str]:
    """Upload a model folder to the experiment of a run.

    Returns:
        The id of the logged model and the URI of its files.

    Raises:
        UserError: the server refuses.
    """
    from mlflow.models import Model

    client = tracking.client
    logged = client.create_logged_model(tracking.experiment_id, name=name, source_run_id=run_id, model_type="encoder")
    description = Model.load(str(folder))
    description.run_id, description.model_id, description.artifact_path = run_id, logged.model_id, logged.artifact_location
    description.save(str(folder / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id, logged.artifact_location


def load_encoder(uri: str, tracking: Tracking) -> Encoder:
    """The encoder of a registered version or a folder. Only safetensors and JSON are read; no code of the model is run.

    Args:
        uri: `models:/name@champion`, `models:/name/3`, or a local folder of an encoder or of an MLflow model.
        tracking: where versions are looked up.

    Raises:
        UserError: no such model, alias or version; its files are missing, damaged, or not a packaged encoder.
    """
    if not uri.startswith("models:/"):
        return _read(Path(uri), uri)
    return load_version(tracking, find(tracking, uri))


def load_encoder_of(settings: Settings, uri: str) -> Encoder:
    """As `load_encoder`; the profile's tracking server is opened only for a registered version."""
    return load_encoder(uri, open_tracking(settings)) if uri.startswith("models:/") else _read(Path(uri), uri)


def load_version(tracking: Tracking, version: ModelVersion) -> Encoder:
    """The encoder of a version; as `load_encoder`."""
    encoder = fetch(tracking, version).encoder
    check_identity(version, encoder)
    return encoder


def check_identity(version: ModelVersion, encoder: Encoder) -> None:
    """Check that an encoder is the one that was registered as a version.

    Raises:
        UserError: it is another one.
    """
    if (known := version.tags.get(IDENTITY, encoder.identity)) != encoder.identity:
        raise UserError(
            f"models:/{version.name}/{version.version}: its files hold another encoder ({encoder.identity[:12]}…) than was "
            f"registered ({known[:12]}…); restore its artifacts from a backup, or register the encoder again"
        )


@dataclass(frozen=True)
class Fetched:
    """A version's encoder, loaded from its registered files."""

    encoder: Encoder
    megabytes: float
    """Of `encoder.safetensors`, 10^6 bytes."""
    round_trip: bool | None
    """Whether its preprocessing reproduces the stored tensor bit for bit; None: none is stored."""


def fetch(tracking: Tracking, version: ModelVersion) -> Fetched:
    """Load a version and check its files; raises as `load_encoder`."""
    uri = f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = download(tracking, version, Path(scratch))
        files = files_of(folder, uri)
        encoder = Encoder.load(files)
        megabytes = (files / WEIGHTS).stat().st_size / 1e6
        stored = list(folder.rglob(ROUND_TRIP))
        return Fetched(encoder, megabytes, same_tensor(encoder, stored[0]) if stored else None)


def download(tracking: Tracking, version: ModelVersion, target: Path) -> Path:
    """Copy the model folder of a version below `target`, which exists.

    Raises:
        UserError: its files cannot be read.
    """
    uri = f"models:/{version.name}/{version.version}"
    source = tracking.client.get_model_version_download_uri(version.name, version.version)
    try:
        return tracking.download(source, target)
    except OSError as error:
        raise UserError(f"{uri}: its files cannot be read ({_line(error)}); register the encoder again") from error


def probe(encoder: Encoder) -> np.ndarray:
    """uint16 (2, C, 32, 32): fixed archive values, to compare the preprocessing of two encoders."""
    shape = (2, len(encoder.preprocessing.bands), _PROBE_SIDE, _PROBE_SIDE)
    return np.random.default_rng(0).integers(0, 10_000, shape, dtype=np.uint16)


def preprocessing_hash(encoder: Encoder) -> str:
    """SHA-256 of the stretched probe, mean, standard deviation and size: exact on every machine (integers and constants)."""
    wanted = encoder.preprocessing
    stretched = wanted.stretched(probe(encoder), replace(ARCHIVE, bands=wanted.bands))
    return hashlib.sha256(stretched.tobytes() + repr((wanted.mean, wanted.std, wanted.size)).encode()).hexdigest()


def _read(folder: Path, uri: str) -> Encoder:
    return Encoder.load(files_of(folder, uri))


def files_of(folder: Path, uri: str) -> Path:
    """The folder of `encoder.safetensors` and `encoder.json` in the folder of an encoder or of an MLflow model.

    Raises:
        UserError: no such folder, or its MLmodel is not that of a packaged encoder.
    """
    if not folder.is_dir():
        raise UserError(f"{uri}: no such folder; write models:/name@champion, models:/name/3 or the folder of an encoder")
    if not (folder / "MLmodel").exists():
        return folder
    try:
        description = read_yaml(folder / "MLmodel", "restore it")
        inside = str(description["flavors"]["python_function"]["artifacts"]["encoder"]["path"])
        encoder = (folder / inside).resolve()
    # ValueError: a null byte in the path
    except (UserError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{uri}: not a packaged encoder ({_line(error)}); register it with `caco register`") from error
    if not encoder.is_relative_to(folder.resolve()):
        raise UserError(f"{uri}: its MLmodel points outside the model ({inside}); register the encoder again")
    return encoder


def _signature(encoder: Encoder) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    wanted = encoder.preprocessing
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint16), (-1, -1, -1, -1), name=None)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, encoder.width))]),
        params=ParamSchema(
            [
                ParamSpec("bands", DataType.string, list(wanted.bands), (-1,)),
                ParamSpec("reflectance_per_dn", DataType.double, ARCHIVE.reflectance_per_dn),
                ParamSpec("offset", DataType.double, ARCHIVE.offset),
                ParamSpec("size", DataType.long, wanted.size),
            ]
        ),
    )


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
