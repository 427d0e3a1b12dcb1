"""What a training begins with: the champion at the time when its vintage begins, kept beside the workspace's other products."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from caco_assets.core.products import Facts, Product, produce
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.resources.mlflow.client import Tracking

logger = logging.getLogger(__name__)

DESCRIPTION = "parent.json"
_RECIPE = "1"
_FILES = ("encoder.safetensors", "encoder.json")


def find_parent(settings: Settings, *, tracking: Tracking | None = None, again: bool = False) -> Product:
    """Make `parent/`: the champion's encoder, or word that there is none; looked up once for each vintage.

    A training that goes on, or is repeated, begins with what it began with, whoever has become champion meanwhile.

    Args:
        settings: the profile; `pretraining.warm_start` says whether there is anything to look up.
        tracking: default: opened here, where it is needed.
        again: look it up although it is known for this vintage.

    Returns:
        The product; its facts are `vintage`, `uri` (None: from scratch) and `identity` of the encoder.

    Raises:
        UserError: the registry cannot be asked, or the champion's files cannot be read.
    """
    paths, wish = settings.paths, settings.pretraining.warm_start
    if again:
        (paths.records / "parent.json").unlink(missing_ok=True)

    def make(folder: Path) -> Facts:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        named = _fetch(settings, folder, tracking) if wish == "champion" else {"uri": None, "identity": None}
        (folder / DESCRIPTION).write_text(json.dumps(named, sort_keys=True) + "\n")
        return {"vintage": settings.vintage, "warm_start": wish, **named}

    return produce(
        "parent",
        paths.root / "parent",
        records=paths.records,
        recipe=_RECIPE,
        inputs={"vintage": settings.vintage, "warm_start": wish, "model": settings.registry.model if wish != "none" else None},
        make=make,
    )


def _fetch(settings: Settings, folder: Path, tracking: Tracking | None) -> dict[str, str | None]:
    """Copy the champion's encoder into the folder, where there is a champion."""
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.registry.package.mlflow_model import download, files_of
    from caco_assets.registry.versions import CHAMPION, aliases, find
    from caco_assets.resources.mlflow.client import open_tracking

    tracking = tracking or open_tracking(settings)
    model = settings.registry.model
    number = aliases(tracking, model).get(CHAMPION)
    if number is None:
        logger.info(f"parent: {model} has no champion yet; training begins from scratch")
        return {"uri": None, "identity": None}
    uri = f"models:/{model}/{number}"
    with tempfile.TemporaryDirectory() as scratch:
        source = files_of(download(tracking, find(tracking, uri), Path(scratch)), uri)
        for name in _FILES:
            shutil.copyfile(source / name, folder / name)
    identity = Encoder.load(folder).identity
    logger.info(f"parent: training begins with the weights of {uri}, the champion")
    return {"uri": uri, "identity": identity}
