"""The embedded Earth behind a real STAC API: planning and ingest over HTTP give what they give from disk."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caco_assets.imagery.archive.shard import TAR
from caco_assets.imagery.catalogs.stac_api import StacApi
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.imagery.planning.scenes_parquet import read_scenes
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, StacApiSource, load_settings

pytestmark = [pytest.mark.integration, pytest.mark.systems]

ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def earth(tiny_home: Path) -> Settings:
    """The tiny profile with its catalog drawn, planned and ingested from disk."""
    return load_settings("tiny", home=tiny_home)


@pytest.fixture(scope="module")
def documents(earth: Settings) -> tuple[dict, list[tuple[Path, dict]]]:
    """The collection and, with their files, the items of the drawn catalog."""
    (collection,) = earth.paths.catalog.glob("*/collection.json")
    items = sorted(collection.parent.glob("*/*.json"))
    return json.loads(collection.read_text()), [(path, json.loads(path.read_text())) for path in items]


def over_http(item: dict, path: Path, catalog: Path, address: str) -> dict:
    """The item with hrefs on the web, as a provider has them."""
    folder = f"{address}/{path.parent.relative_to(catalog).as_posix()}"
    assets = {key: {**asset, "href": f"{folder}/{asset['href'].removeprefix('./')}"} for key, asset in item["assets"].items()}
    return {**item, "assets": assets, "links": []}


def test_planning_and_ingest_through_the_api_give_the_archive_made_from_disk(earth, documents, stac_server, serve_files, tmp_path):
    address, (collection, items) = serve_files(earth.paths.catalog), documents
    remote = [over_http(item, path, earth.paths.catalog, address) for path, item in items]
    stac_server.load({**collection, "links": []}, remote, tmp_path)

    source = StacApiSource(url=stac_server.url, collection=collection["id"], page_size=7)
    settings = load_settings("tiny", home=tmp_path)
    settings = settings.model_copy(update={"imagery": settings.imagery.model_copy(update={"source": source})})
    sample(settings)
    plan(settings)
    there, here = read_scenes(settings.paths.scenes), read_scenes(earth.paths.scenes)
    same = [name for name in here.column_names if name != "hrefs"]
    assert there.select(same).equals(here.select(same))
    assert f"{address}/" in there["hrefs"][0].as_py()
    for shard in range(settings.shards):
        ingest_shard(settings, shard)
    collect(settings)
    names = sorted(path.relative_to(earth.paths.archive) for path in earth.paths.archive.rglob("*") if path.is_file())
    assert [path.name for path in names].count(TAR) == settings.shards
    for name in names:
        assert (settings.paths.archive / name).read_bytes() == (earth.paths.archive / name).read_bytes(), name
    assert settings.paths.quarantine.read_bytes() == earth.paths.quarantine.read_bytes()


def test_the_real_server_chooses_fields_filters_clouds_and_pages(documents, stac_server, tmp_path):
    collection, items = documents
    collection = {**collection, "id": "cloudy", "links": []}
    clouds = [None, 10.0, 95.0]
    records = []
    for number, (_, item) in enumerate(items[:12]):
        properties = {key: value for key, value in item["properties"].items() if key != "eo:cloud_cover"}
        if clouds[number % 3] is not None:
            properties["eo:cloud_cover"] = clouds[number % 3]
        assets = {key: {**asset, "href": f"https://a.example/{key}.tif"} for key, asset in item["assets"].items()}
        records.append({**item, "collection": "cloudy", "properties": properties, "assets": assets, "links": []})
    stac_server.load(collection, records, tmp_path)
    source = StacApiSource(url=stac_server.url, collection="cloudy", page_size=5)
    world = (-180.0, -90.0, 180.0, 90.0)
    everything = StacApi(source, ("B02", "B03")).search(world, ALWAYS)
    assert len(everything) == 12
    limited = StacApi(source, ("B02", "B03"), max_scene_cloud=90.0, cache=tmp_path / "cache").search(world, ALWAYS)
    assert {scene.cloud_cover for scene in limited} == {None, 10.0}
    assert [scene for scene in everything if scene.cloud_cover != 95.0] == limited
    assert limited[0].radiometry.scale == 1e-4
    (file,) = (tmp_path / "cache").rglob("*.gz")
    assert file.stat().st_size < 12 * 1000
