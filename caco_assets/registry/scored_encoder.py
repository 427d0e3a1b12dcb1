"""The products that a registration reads: the profile's encoder, its scores and the drift check of its data."""

from __future__ import annotations

from dataclasses import dataclass

from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, recorded, verify
from caco_assets.settings import Settings


@dataclass(frozen=True)
class ScoredEncoder:
    """An encoder with its scores."""

    encoder: Product
    scores: Product
    drift: Product | None = None
    """None: no drift check ran."""

    @classmethod
    def recorded(cls, settings: Settings) -> ScoredEncoder:
        """The products on record.

        Raises:
            UserError: there is no encoder, it has no scores yet, or one of them is not what was recorded.
        """
        records = settings.paths.records
        encoder, scores = recorded(records, "encoder"), recorded(records, "scores")
        for product in (encoder, scores):
            verify(records, product)
        try:
            drift = recorded(records, "drift")
        except UserError:
            drift = None
        return cls(encoder, scores, drift)
