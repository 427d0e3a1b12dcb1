"""The stage `validation`: what it keeps, what it says, and the data docs."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from caco_assets.core.errors import UserError
from caco_assets.validation.facts.quarantine import quarantine_summary
from caco_assets.validation.stage import PRODUCTS, build_docs, validate


def files_below(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_stage_loads_without_heavy_libraries():
    code = (
        "import sys, caco_assets.validation.stage;"
        "print([name for name in ('great_expectations', 'pandas', 'rasterio', 'geopandas', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_unknown_product_lists_those_there_are(settings):
    with pytest.raises(UserError, match="product=packs: cannot be validated; choose one of locations, scenes, archive"):
        validate(settings, "packs")


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_that_is_not_there_is_said_in_one_line(settings, product):
    with pytest.raises(UserError, match="does not exist; run the stage that makes it") as caught:
        validate(settings, product)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet_is_said_in_one_line(settings):
    settings.paths.locations.parent.mkdir(parents=True)
    settings.paths.locations.write_text("not parquet")
    with pytest.raises(UserError, match=r"locations\.parquet: not a readable Parquet file") as caught:
        validate(settings, "locations")
    assert "\n" not in str(caught.value)


def test_a_column_that_is_gone_is_a_finding_and_no_crash(world):
    world.locations = world.locations.drop(columns="population")
    world.write()
    result = validate(world.settings, "locations")
    assert any("L0000000 = population" in line for line in result.blocking_failed)


def test_warnings_do_not_stop_the_chain_and_blocking_findings_do(world):
    world.locations.loc[1, "country"] = "France"
    world.write()
    result = validate(world.settings, "locations")
    assert (result.blocking_failed, len(result.warnings)) == ([], 1)


def test_every_finding_is_said_and_kept_for_the_report(logged, world):
    world.locations.loc[1, "shard"] = 7
    world.write()
    said = logged()
    result = validate(world.settings, "locations")
    assert said == [f"blocking: {result.blocking_failed[0]}", "validate locations: 17 of 18 expectations hold"]
    kept = json.loads((world.settings.paths.data_docs / "results" / "locations.json").read_text())
    assert kept["blocking_failed"] == result.blocking_failed
    assert kept["table"] == result.table
    assert kept["success"] is False
    assert kept["evaluated"] == 18


def test_the_same_product_gives_the_same_findings(world):
    world.write()
    first, second = (validate(world.settings, "archive") for _ in range(2))
    assert first.table == second.table


def test_the_data_docs_need_results(settings):
    with pytest.raises(UserError, match="nothing has been validated yet"):
        build_docs(settings)


def test_the_data_docs_link_every_table_and_load_nothing_from_another_host(world):
    world.scores.loc[0, "value"] = 1.5
    world.write()
    results = {product: validate(world.settings, product) for product in PRODUCTS}
    index = build_docs(world.settings)
    assert index == world.settings.paths.data_docs / "index.html" == results["pack"].docs
    text = index.read_text()
    for product, result in results.items():
        assert f'<th scope="row">{product}</th>' in text
        for table in {row["table"] for row in result.table}:
            assert f">{table}</a>" in text
    links = re.findall(r'href="([^"]+)"', text)
    assert len(links) == 15
    for link in links:
        page = (index.parent / link).read_text()
        assert "Expectation" in page
    assert "the value lies within 0 and 1" in text
    for page in index.parent.rglob("*.html"):
        # links that people may follow stay; nothing is fetched
        assert not re.search(r'(?:src="|url\(|<link[^>]*href=")[\'"]?https?:', page.read_text()), page


def test_the_data_docs_of_the_same_results_are_the_same_bytes(world):
    world.write()
    for product in ("locations", "scores"):
        validate(world.settings, product)
    folder = build_docs(world.settings).parent
    first = files_below(folder)
    build_docs(world.settings)
    assert files_below(folder) == first


def test_the_data_docs_keep_only_the_last_result_of_a_product(world):
    world.write()
    validate(world.settings, "locations")
    build_docs(world.settings)
    results = world.settings.paths.data_docs / "results" / "gx" / "locations.json"
    older = results.read_text().replace('"run_time": "20', '"run_time": "19')
    results.write_text(older)
    build_docs(world.settings)
    assert len(list((world.settings.paths.data_docs / "validations").rglob("*.html"))) == 1


def test_a_refused_candidate_whose_date_was_filled_costs_nothing(world):
    rows = quarantine_summary(world.chips, world.locations, world.quarantine, world.settings).set_index("id")
    assert rows.loc["cloudy", ["tried", "lost"]].tolist() == [1, 0]
    assert rows.loc["all", "share"] == 0


def test_a_lost_chip_counts_under_the_reason_of_its_date_else_of_its_place(world):
    world.quarantine.loc[1] = ["L0000003", 0, None, None, None, "too_few_seasons", "clear dates: 3 early, 2 late", None]
    lost = (world.chips["location_id"] == "L0000003") | (world.chips["id"] == "L0000000/p0s1")
    rows = quarantine_summary(world.chips[~lost], world.locations, world.quarantine, world.settings).set_index("id")
    assert rows["lost"].to_dict() == {"cloudy": 1, "too_few_seasons": 6, "unexplained": 0, "all": 7}
    assert rows.loc["all", "share"] == pytest.approx(7 / 72)


def test_a_served_place_may_lack_a_date_for_want_of_scenes(world):
    wider = world.settings.imagery.model_copy(update={"seasons": 4})
    settings = world.settings.model_copy(update={"imagery": wider})
    rows = quarantine_summary(world.chips, world.locations, world.quarantine, settings).set_index("id")
    assert rows["lost"].to_dict() == {"cloudy": 0, "no_other_scene": 24, "unexplained": 0, "all": 24}
