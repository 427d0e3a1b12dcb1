"""The warm-start parent: the champion when a vintage begins, kept as a product of the workspace."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product, produce
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.resources.mlflow.client import Tracking

logger = logging.getLogger(__name__)

DESCRIPTION = "parent.json"
_RECIPE = "1"
_FILES = ("encoder.safetensors", "encoder.json")


def find_parent(settings: Settings, *, tracking: Tracking | None = None, again: bool = False) -> Product:
    """Make `parent/`: the champion's encoder, or a note that there is none; looked up once per vintage.

    A resumed or repeated training starts from the same weights, even if the champion has changed.

    Args:
        settings: the profile; `pretraining.warm_start` decides whether there is a parent.
        tracking: default: opened here if it is needed.
        again: look it up even if it is known for this vintage.

    Returns:
        The product; its facts are `vintage`, `uri` (None: from scratch) and `identity` of the encoder.

    Raises:
        UserError: the server does not answer, or the champion's files cannot be read.
    """
    paths, warm_start = settings.paths, settings.pretraining.warm_start
    if again:
        (paths.records / "parent.json").unlink(missing_ok=True)

    def make(folder: Path) -> Facts:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        parent = _fetch(settings, folder, tracking) if warm_start == "champion" else {"uri": None, "identity": None}
        (folder / DESCRIPTION).write_text(json.dumps(parent, sort_keys=True) + "\n")
        return {"vintage": settings.vintage, "warm_start": warm_start, **parent}

    model = settings.registry.model if warm_start != "none" else None
    return produce(
        "parent",
        paths.root / "parent",
        records=paths.records,
        recipe=_RECIPE,
        inputs={"vintage": settings.vintage, "warm_start": warm_start, "model": model},
        make=make,
    )


def _fetch(settings: Settings, folder: Path, tracking: Tracking | None) -> dict[str, str | None]:
    """Copy the champion's encoder into the folder, if there is a champion."""
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.registry.package.mlflow_model import check_identity, download, files_of
    from caco_assets.registry.versions import CHAMPION, aliases, find
    from caco_assets.resources.mlflow.client import open_tracking

    tracking = tracking or open_tracking(settings)
    model = settings.registry.model
    number = aliases(tracking, model).get(CHAMPION)
    if number is None:
        logger.info(f"parent: {model} has no champion yet; training starts from scratch")
        return {"uri": None, "identity": None}
    uri = f"models:/{model}/{number}"
    version = find(tracking, uri)
    with tempfile.TemporaryDirectory() as scratch:
        source = files_of(download(tracking, version, Path(scratch)), uri)
        for name in _FILES:
            if not (source / name).is_file():
                raise UserError(f"{uri}: {name} is missing among its files; restore its artifacts, or register the encoder again")
            shutil.copyfile(source / name, folder / name)
    encoder = Encoder.load(folder)
    check_identity(version, encoder)
    identity = encoder.identity
    logger.info(f"parent: training starts from the weights of {uri}, the champion")
    return {"uri": uri, "identity": identity}
