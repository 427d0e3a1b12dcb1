"""What goes out with a champion, once per version: its exports, its model card and the map of its places, as files of its run."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError, one_line
from caco_assets.core.products import content_hash
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.pretraining.encoder.encoder import DESCRIPTION, Encoder
from caco_assets.registry.aliases.alias_moves import settle
from caco_assets.registry.package.mlflow_model import download, files_of
from caco_assets.registry.release.export import export_files
from caco_assets.registry.release.model_card import as_description, write_card
from caco_assets.registry.versions import DATA, find, registry_lock
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.resources.mlflow.runs import open_run
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

RELEASED = "released"
"""Tag of a version: address of its exports and card (`runs:/…/release/version-3`)."""
CARD, MAP = "model_card.md", "places.png"


@dataclass(frozen=True)
class Released:
    """What the champion's users find."""

    version: str
    where: str
    """`runs:/…`: for `mlflow artifacts download -u`."""
    card: str
    """Markdown; the map is a file beside it, or `places`."""
    places: bytes | None = None
    """The map of its places, PNG; None: not known here, or released before."""
    parity: dict[str, float] = field(default_factory=dict)
    """Form → largest difference from the encoder's features, in their standard deviations."""
    reused: bool = False
    """It was released before."""


def release_champion(settings: Settings, tracking: Tracking) -> Released | None:
    """Release the version that serves, unless that has been done; None: there is no champion.

    Raises:
        UserError: its files cannot be read, a form does not give its features, or the server refuses. It serves all the same; the
            next call tries again.
    """
    model = settings.registry.model
    # a lock of its own: an export takes a minute, in which decisions need not wait
    with registry_lock(tracking, f"{model}.release"):
        number = settle(tracking, model).serving.champion
        if number is None:
            logger.info(f"{model}: there is no champion, nothing to release")
            return None
        version = find(tracking, f"models:/{model}/{number}")
        if RELEASED in version.tags:
            logger.info(f"{model}: version {number} was released before ({version.tags[RELEASED]})")
            return Released(number, version.tags[RELEASED], version.description or "", reused=True)
        return _release(settings, tracking, version)


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
        card = write_card(settings, version, Encoder.load(files), described, rows, places)
        (folder / CARD).write_text(card)
        # where the card is shown alone, a picture beside it is not found
        shown = card.replace(places, f"`{MAP}`, beside this card.") if drawn is not None else card
        run_id = version.run_id or _own_run(settings, tracking)
        name = f"release/version-{number}"
        where = f"runs:/{run_id}/{name}"
        tracking.client.log_artifacts(run_id, str(folder), name)
        tracking.client.update_model_version(model, number, as_description(shown, f"{where}/{CARD}"))
        # last: a release that was cut short is made again
        tracking.client.set_model_version_tag(model, number, RELEASED, where)
    logger.info(f"{model}: version {number} is released: {where}")
    return Released(number, where, shown, drawn, parity)


def _places(settings: Settings, version: ModelVersion) -> tuple[str, bytes | None]:
    """A sentence, and the map where the places at hand are those that the version names."""
    from caco_assets.sampling.map import world_map

    file, wanted = settings.paths.locations, version.tags.get(f"{DATA}locations")
    if wanted is None or not file.is_file() or content_hash(file) != wanted:
        known = f"those of `{wanted}`" if wanted else "not named by this version"
        return f"{known}; not in the workspace that wrote this card.", None
    return f"![where the pixels come from: each dot is a place]({MAP})", world_map(file)


def _rows(tracking: Tracking, version: ModelVersion) -> list[ScoreRow]:
    """The scores that its decision rests on; none where its run does not hold them."""
    if not version.run_id:
        return []
    uri = f"runs:/{version.run_id}/decision/version-{version.version}.scores.json"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = tracking.download(uri, Path(scratch))
            return [ScoreRow(**fields) for fields in json.loads(path.read_text())]
        except (OSError, TypeError, ValueError, UserError) as error:
            logger.info(f"{version.name}: the card shows a line of figures only ({one_line(error, 150)})")
            return []


def _own_run(settings: Settings, tracking: Tracking) -> str:
    """A run for a version that came without one."""
    with open_run(tracking, "registry", settings) as run:
        return run.run_id
