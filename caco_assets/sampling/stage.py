"""The stage `locations`: draws the places on the Earth."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from caco_assets.core.products import Facts, Product, produce, recorded
from caco_assets.core.stage_versions import stage_version
from caco_assets.sampling.fingerprint_inputs import decisive, tables
from caco_assets.settings import SecoLayoutSource, Settings

logger = logging.getLogger(__name__)


def sample(settings: Settings) -> Product:
    """Draw the places of the profile and write `locations.parquet`. The places of an imported set are kept unchanged.

    Raises:
        UserError: the places cannot be found with these settings; the message says what to change.
    """
    if isinstance(settings.imagery.source, SecoLayoutSource):
        return replace(recorded(settings.paths.records, "locations"), reused=True)

    def make(path: Path) -> Facts:
        from caco_assets.sampling.acceptance import acceptance_of
        from caco_assets.sampling.gazetteer import cities_of
        from caco_assets.sampling.locations import shards_of, write_locations
        from caco_assets.sampling.sampler import draw

        cities, acceptance = cities_of(settings), acceptance_of(settings)
        places = draw(settings.sampling, settings.seed, cities, acceptance)
        wanted = settings.sampling
        facts = write_locations(path, places, cities, shards_of(places.lon, places.lat, wanted.places_per_shard, wanted.shard_by))
        facts["zones"] = len(acceptance.zones)
        logger.info(
            f"locations: {_counted(facts['places'], 'place')} around {_counted(facts['cities'], 'city', 'cities')}; "
            f"{_counted(places.counts['drawn'], 'candidate')} drawn, {places.counts['excluded']} of them inside "
            f"{_counted(len(acceptance.zones), 'exclusion zone')}"
        )
        return facts

    return produce(
        "locations",
        settings.paths.locations,
        records=settings.paths.records,
        recipe=stage_version("locations"),
        inputs={"sampling": decisive(settings), "seed": settings.seed, **tables(settings)},
        make=make,
    )


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
