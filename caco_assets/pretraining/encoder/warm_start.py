"""Starts training from the weights of another encoder, such as the serving one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import Encoder


def begin_with(encoder: Encoder, parent: Path) -> None:
    """Copy the weights of the encoder in the folder `parent` into `encoder`, in place.

    Raises:
        UserError: they differ in architecture or bands; names the difference.
    """
    older = Encoder.load(parent)
    for what, mine, theirs in (
        ("backbone", encoder.architecture, older.architecture),
        ("bands", encoder.preprocessing.bands, older.preprocessing.bands),
        ("image_size", encoder.preprocessing.size, older.preprocessing.size),
    ):
        if mine != theirs and not (what == "image_size" and _fully_convolutional(encoder)):
            raise UserError(
                f"pretraining.warm_start: the encoder to begin with has {what}={_words(theirs)}, this training has "
                f"{_words(mine)}; set pretraining.{what} to that, or warm_start to none"
            )
    encoder.backbone.load_state_dict(older.backbone.state_dict())


def _fully_convolutional(encoder: Encoder) -> bool:
    return not hasattr(encoder.backbone, "pos_embed")


def _words(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
