"""Registers an encoder once: the MLflow model, a version with its tags and a short model card, the alias `challenger`."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.markup import markdown_environment
from caco_assets.core.products import Product
from caco_assets.downstream.score_rows import read_rows
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.champion import challenge
from caco_assets.registry.lineage.record import LINEAGE, Lineage, store, tags_of
from caco_assets.registry.package.mlflow_model import package, preprocessing_hash, upload
from caco_assets.registry.promotion.decide import scores_line
from caco_assets.registry.promotion.rules import PREPROCESSING, drift_tags
from caco_assets.registry.versions import CHALLENGER, DATA, IDENTITY, SCORES, local_lock, versions
from caco_assets.resources.mlflow.client import RequestRefusedError, Tracking, open_tracking
from caco_assets.resources.mlflow.runs import Run, code_version, open_run
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

_TEMPLATE = "mlflow/model_card.md.j2"
_DEFAULT = "{{ objective }}, {{ architecture }}, bands {{ bands }}; profile {{ profile }}, vintage {{ vintage }}; {{ scores }}"


@dataclass(frozen=True)
class Registered:
    """A version in the registry."""

    version: str
    uri: str
    """`models:/name/3`."""
    alias: str
    reused: bool = False
    """The same encoder of the same data was registered before."""


def register_encoder(
    settings: Settings,
    encoder_dir: Path,
    scores_path: Path | None,
    data_versions: Mapping[str, str],
    run_id: str | None = None,
    tracking: Tracking | None = None,
    lineage: Lineage | None = None,
    drift: Product | None = None,
) -> Registered:
    """Register the encoder of a folder as the challenger.

    Args:
        settings: the profile; `registry.model` is the name.
        encoder_dir: `encoder.safetensors`, `encoder.json`.
        scores_path: `scores.parquet`; None: not scored yet.
        data_versions: product → content hash; a version with other data is a new version.
        run_id: MLflow run that made the encoder; None: a run with the room `registry` is opened for it.
        tracking: default: opened here.
        lineage: what made it; kept with the version.
        drift: the drift check of its data; None: it did not run.

    Raises:
        UserError: no valid encoder or scores there, or the server refuses.
    """
    tracking = tracking or open_tracking(settings)
    model = settings.registry.model
    encoder, description = Encoder.load(encoder_dir), _description(encoder_dir)
    rows = read_rows(scores_path) if scores_path is not None else None
    # facts that may become known after the first registration
    later = {**drift_tags(drift, settings.vintage), **({} if rows is None else {SCORES: scores_line(rows)})}
    tags = {
        IDENTITY: encoder.identity,
        PREPROCESSING: preprocessing_hash(encoder),
        **{f"{DATA}{name}": digest for name, digest in data_versions.items()},
        "profile": settings.profile,
        "vintage": settings.vintage,
        "recipe": json.dumps(description.get("recipe", {}), sort_keys=True),
        "code_version": code_version(),
        **(tags_of(lineage) if lineage else {}),
        **later,
    }
    with local_lock(tracking, model):
        if (known := _same(versions(tracking, model), encoder.identity, data_versions)) is not None:
            version, reused = str(known.version), True
            logger.info(f"{model}: this encoder is already version {version}")
            for name, value in later.items():
                tracking.client.set_model_version_tag(model, version, name, value)
            if lineage is not None and LINEAGE not in known.tags and known.run_id:
                tracking.client.set_model_version_tag(model, version, LINEAGE, store(tracking, known.run_id, lineage))
        else:
            opened = nullcontext(Run(tracking, run_id)) if run_id else open_run(tracking, "registry", settings, data=data_versions)
            with opened as run:
                if lineage is not None:
                    tags[LINEAGE] = store(tracking, run.run_id, lineage)
                card = _model_card(settings, encoder, description, data_versions, tags.get(SCORES, "not scored yet"))
                version, reused = _create(tracking, model, encoder_dir, run, tags, card, scores_path), False
            logger.info(f"{model}: registered version {version}")
        challenge(tracking, model, version)
    return Registered(version, f"models:/{model}/{version}", CHALLENGER, reused)


def _create(
    tracking: Tracking, model: str, encoder_dir: Path, run: Run, tags: Mapping[str, str], card: str, scores_path: Path | None
) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        package(encoder_dir, folder)
        model_id, source = upload(tracking, run.run_id, folder, "encoder")
    if scores_path is not None:
        run.file(scores_path, "scores")
    client = tracking.client
    try:
        client.create_registered_model(model)
    except RequestRefusedError as error:
        if error.code != "RESOURCE_ALREADY_EXISTS":
            raise
    # the URI of the files, not of the logged model: MLflow would look that up at its global tracking address
    made = client.create_model_version(model, source, run.run_id, tags=dict(tags), description=card, model_id=model_id)
    # a repeated request whose first answer was lost has made duplicates of the same files
    first, *duplicates = [each for each in versions(tracking, model) if each.source == made.source]
    for duplicate in duplicates:
        client.delete_model_version(model, str(duplicate.version))
    return str(first.version)


def _same(known: list[ModelVersion], identity: str, data_versions: Mapping[str, str]) -> ModelVersion | None:
    wanted = {f"{DATA}{name}": digest for name, digest in data_versions.items()}
    for version in reversed(known):
        data = {name: value for name, value in version.tags.items() if name.startswith(DATA)}
        if version.tags.get(IDENTITY) == identity and data == wanted:
            return version
    return None


def _description(encoder_dir: Path) -> dict[str, Any]:
    return json.loads((encoder_dir / "encoder.json").read_text())


def _model_card(
    settings: Settings, encoder: Encoder, description: Mapping[str, Any], data_versions: Mapping[str, str], scores: str
) -> str:
    path = settings.home / _TEMPLATE
    # the template of the home folder if there is one
    return (
        markdown_environment()
        .from_string(path.read_text() if path.is_file() else _DEFAULT)
        .render(
            model=settings.registry.model,
            objective=description.get("recipe", {}).get("objective", settings.pretraining.objective),
            architecture=encoder.architecture,
            bands=", ".join(encoder.preprocessing.bands),
            width=encoder.width,
            profile=settings.profile,
            vintage=settings.vintage,
            data=", ".join(f"{name} {digest}" for name, digest in data_versions.items()) or "data without a version",
            scores=scores,
        )
    )
