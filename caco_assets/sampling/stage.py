"""The stage `locations`: where on the Earth to look."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from caco_assets.core.products import Facts, Product, produce, recorded
from caco_assets.core.stage_versions import recipe
from caco_assets.sampling.fingerprint_inputs import decisive, tables
from caco_assets.settings import SecoLayoutSource, Settings

logger = logging.getLogger(__name__)


def sample(settings: Settings) -> Product:
    """Draw the places of the profile and write `locations.parquet`. A published set has places of its own, which stay.

    Raises:
        UserError: the places cannot be found with these settings; says what to change.
    """
    if isinstance(settings.imagery.source, SecoLayoutSource):
        return replace(recorded(settings.paths.records, "locations"), reused=True)

    def make(path: Path) -> Facts:
        from caco_assets.sampling.acceptance import ground_of
        from caco_assets.sampling.gazetteer import cities_of
        from caco_assets.sampling.locations import shards_of, write_locations
        from caco_assets.sampling.sampler import draw

        cities, ground = cities_of(settings), ground_of(settings)
        places = draw(settings.sampling, settings.seed, cities, ground)
        wanted = settings.sampling
        facts = write_locations(path, places, cities, shards_of(places.lon, places.lat, wanted.places_per_shard, wanted.shard_by))
        facts["zones"] = len(ground.zones)
        logger.info(
            f"locations: {facts['places']} places around {facts['cities']} cities, {places.counts['drawn']} candidates drawn, "
            f"{places.counts['excluded']} of them in the {len(ground.zones)} exclusion zones"
        )
        return facts

    return produce(
        "locations",
        settings.paths.locations,
        records=settings.paths.records,
        recipe=recipe("locations"),
        inputs={"sampling": decisive(settings), "seed": settings.seed, **tables(settings)},
        make=make,
    )
