"""Releases the champion, once per version: exports, model card and the map of its places, as files of its run."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError, one_line
from caco_assets.core.markup import escape_markdown
from caco_assets.core.products import content_hash
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.pretraining.encoder.encoder import DESCRIPTION, Encoder
from caco_assets.registry.aliases.alias_history import history
from caco_assets.registry.aliases.alias_moves import OVERRIDDEN, PASSED, PROMOTED, WITHDRAWN, settle
from caco_assets.registry.package.mlflow_model import download, files_of
from caco_assets.registry.release.export import export_files
from caco_assets.registry.release.model_card import as_description, write_model_card
from caco_assets.registry.versions import DATA, GATE, find, local_lock
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.resources.mlflow.runs import open_run
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

RELEASED = "released"
"""Tag of a version: URI of its exports and model card (`runs:/…/release/version-3`)."""
MODEL_CARD, MAP = "model_card.md", "places.png"


@dataclass(frozen=True)
class Released:
    """The released files of a version."""

    version: str
    where: str
    """`runs:/…`: for `mlflow artifacts download -u`."""
    card: str
    """Model card, Markdown; the map is a file beside it, or `places`."""
    places: bytes | None = None
    """Map of its places, PNG; None: the places are not in this workspace, or it was released before."""
    parity: dict[str, float] = field(default_factory=dict)
    """File → largest difference from the encoder's features, in their standard deviations."""
    reused: bool = False
    """It was released before."""


def release_champion(settings: Settings, tracking: Tracking) -> Released | None:
    """Release the version that serves, once; None: there is no champion.

    Raises:
        UserError: its files cannot be read, an export does not give its features, or the server refuses. The champion serves
            all the same; the next call tries again.
    """
    model = settings.registry.model
    # its own lock: an export takes a minute, and decisions need not wait for it
    with local_lock(tracking, f"{model}.release"):
        number = settle(tracking, model).serving.champion
        if number is None:
            logger.info(f"{model}: no champion, nothing to release")
            return None
        version = find(tracking, f"models:/{model}/{number}")
        if RELEASED in version.tags:
            logger.info(f"{model}: version {number} is already released ({version.tags[RELEASED]})")
            return Released(number, version.tags[RELEASED], version.description or "", reused=True)
        return _release(settings, tracking, version)


def unreleased_champion(settings: Settings, tracking: Tracking, *, deciding: bool = False) -> tuple[str, str] | None:
    """The version that serves, if its gate has passed and it has no exports yet.

    A decision is followed by its release, unless its run dies in between; a manual move and a rollback are not.

    Args:
        settings: the profile.
        tracking: the server.
        deciding: a run that takes decisions is in progress; it releases what it promotes itself.

    Returns:
        The number and since when it serves; None: there is none.
    """
    model = settings.registry.model
    moves = history(tracking, model)
    if not moves or (deciding and moves[-1].what in (PROMOTED, OVERRIDDEN)) or moves[-1].after.champion is None:
        return None
    version, since = moves[-1].after.champion, moves[-1].at
    tags = find(tracking, f"models:/{model}/{version}").tags
    may_serve = tags.get(GATE) in (PASSED, OVERRIDDEN) and WITHDRAWN not in tags
    return (version, since) if may_serve and RELEASED not in tags else None


def _release(settings: Settings, tracking: Tracking, version: ModelVersion) -> Released:
    model, number = version.name, str(version.version)
    uri = f"models:/{model}/{number}"
    with tempfile.TemporaryDirectory() as scratch:
        files = files_of(download(tracking, version, Path(scratch)), uri)
        folder = Path(scratch) / "release"
        vintage = version.tags.get("vintage", settings.vintage)
        parity = export_files(files, folder, name=f"{model}-{number}", vintage=vintage, forms=settings.registry.forms)
        places, drawn = _places(settings, version)
        if drawn is not None:
            (folder / MAP).write_bytes(drawn)
        rows = _rows(tracking, version)
        described = json.loads((files / DESCRIPTION).read_text())
        card = write_model_card(settings, version, Encoder.load(files), described, rows, places)
        (folder / MODEL_CARD).write_text(card)
        # MLflow shows the card without the file beside it
        shown = card.replace(places, f"`{MAP}`, beside this model card.") if drawn is not None else card
        run_id = version.run_id or _own_run(settings, tracking)
        name = f"release/version-{number}"
        where = f"runs:/{run_id}/{name}"
        tracking.client.log_artifacts(run_id, str(folder), name)
        tracking.client.update_model_version(model, number, as_description(shown, f"{where}/{MODEL_CARD}"))
        # last: an interrupted release is repeated
        tracking.client.set_model_version_tag(model, number, RELEASED, where)
    logger.info(f"{model}: released version {number}: {where}")
    return Released(number, where, shown, drawn, parity)


def _places(settings: Settings, version: ModelVersion) -> tuple[str, bytes | None]:
    """A sentence, and the map if the places in the workspace are those of the version."""
    from caco_assets.sampling.map import world_map

    file, wanted = settings.paths.locations, version.tags.get(f"{DATA}locations")
    if wanted is None or not file.is_file() or content_hash(file) != wanted:
        known = f"those of `{escape_markdown(wanted)}`" if wanted else "not recorded for this version"
        return f"{known}; not in the workspace that wrote this card.", None
    return f"![Training places, one dot each]({MAP})", world_map(file)


def _rows(tracking: Tracking, version: ModelVersion) -> list[ScoreRow]:
    """The scores that its decision is based on; empty if its run does not hold them."""
    if not version.run_id:
        return []
    uri = f"runs:/{version.run_id}/decision/version-{version.version}.scores.json"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = tracking.download(uri, Path(scratch))
            return [ScoreRow(**fields) for fields in json.loads(path.read_text())]
        except (OSError, TypeError, ValueError, UserError) as error:
            logger.info(f"{version.name}: the model card shows only the line of scores ({one_line(error, 150)})")
            return []


def _own_run(settings: Settings, tracking: Tracking) -> str:
    """A run for a version without one."""
    with open_run(tracking, "registry", settings) as run:
        return run.run_id
