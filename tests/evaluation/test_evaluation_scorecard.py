import json

import pytest

from caco_assets.downstream.tasks import TASKS
from caco_assets.evaluation.headline import headline
from caco_assets.evaluation.published import comparable, elsewhere, published
from caco_assets.evaluation.scorecard import Line, scorecard, scorecard_text


def find(card, row, protocol, method="linear_probe"):
    (section,) = [s for s in card.sections if (s.row, s.protocol, s.method) == (row, protocol, method)]
    return section


def test_every_published_figure_has_a_source_and_a_plausible_value():
    assert len(published()) == 69
    for row in published():
        assert len(row.source) > 20
        assert 20 < row.value < 100
        assert 0.2 < row.share < 1


def test_the_published_table_holds_the_known_figures():
    main = {(row.method, row.backbone, row.task): row.value for row in published() if row.group == "table"}
    assert main["CACo", "resnet18", "eurosat"] == 93.08
    assert main["CACo", "resnet50", "bigearthnet"] == 73.63
    assert main["Random", "resnet18", "oscd"] == 28.91
    assert main["SeCo", "resnet18", "dynamicearthnet"] == 46.83
    # 6 methods: EuroSAT and BigEarthNet with two backbones, OSCD and DynamicEarthNet with one
    assert len(main) == 36


def test_only_the_papers_own_protocol_is_comparable():
    assert {row.method for row in comparable("eurosat", "accuracy")} == {"Random", "ImageNet", "MoCo v2", "GSSL", "SeCo", "CACo"}
    assert comparable("aid_20", "accuracy") == []
    assert {row.method for row in elsewhere("aid_20", "accuracy")} == {"SeCo", "SelectiveMAE"}


def test_published_figures_stand_beside_paper_rows_of_real_data_only(scored):
    card = scorecard(scored.paths.scores, twins={"eurosat_twin"})
    with_published = {
        (section.row, section.protocol, section.method)
        for section in card.sections
        if any(line.role == "published" for line in section.lines)
    }
    assert with_published == {("eurosat_real", "paper", "linear_probe")}


def test_protocols_never_share_a_section(scored):
    card = scorecard(scored.paths.scores)
    clean, paper = find(card, "eurosat_real", "clean"), find(card, "eurosat_real", "paper")
    assert clean.of("caco").value == pytest.approx(0.82)
    assert paper.of("caco").value == pytest.approx(0.76)


def test_several_seeds_become_their_mean_and_the_widest_interval(scored):
    line = find(scorecard(scored.paths.scores), "eurosat_real", "paper").of("caco")
    assert line.seeds == 2
    assert line.value == pytest.approx((0.75 + 0.77) / 2)
    assert line.low < 0.75 < 0.77 < line.high
    assert len(line.items) == 2


def test_lines_come_by_role_then_by_value_and_unmeasured_last(scored):
    lines = find(scorecard(scored.paths.scores), "eurosat_real", "clean").lines
    assert [line.encoder for line in lines] == ["caco", "raw_statistics", "random", "imagenet"]
    assert not lines[-1].measured


def test_the_text_shows_figures_intervals_and_reasons(scored):
    text = scorecard_text(scorecard(scored.paths.scores))
    assert "eurosat_real · clean · linear probe · 64 px" in text
    assert " 82.0  [ " in text
    assert "n=200, seeds=1" in text
    assert "imagenet        not measured: ImageNet weights of resnet18: not in the local cache" in text
    assert "CACo (resnet18)" in text


def test_figures_of_other_protocols_stand_apart_once_with_what_differs(scored):
    card = scorecard(scored.paths.scores, twins={"eurosat_twin"})
    shown = [section for section in card.sections if section.others]
    assert [section.row for section in shown] == ["eurosat_real"]
    text = scorecard_text(card)
    assert text.count("published under other protocols, not to be compared:") == 1
    assert "95.9  CACo, 1M images (resnet50): a million images instead of 100 000; Mall" in text


def test_every_published_row_is_about_a_task_of_the_table():
    assert {row.task for row in published()} <= set(TASKS)


def test_the_json_holds_the_figures_of_every_line(scored):
    card = scorecard(scored.paths.scores)
    lines = [line for section in card.sections for line in section.lines]
    flat = [line for section in json.loads(json.dumps(card.to_json()))["sections"] for line in section["lines"]]
    assert [(line["encoder"], line["value"]) for line in flat] == [(line.encoder, line.value) for line in lines]


def test_the_headline_is_the_clean_probe_on_real_images_with_paired_gains(scored):
    main = headline(scored, scorecard(scored.paths.scores))
    assert (main.section.row, main.section.protocol) == ("eurosat_real", "clean")
    assert main.real
    gains = {gain.over: gain for gain in main.gains}
    assert set(gains) == {"random", "raw_statistics"}
    assert gains["random"].value == pytest.approx(0.22)
    assert gains["random"].low < 0.22 < gains["random"].high
    assert gains["random"].verdict == "better"


def test_a_gain_whose_interval_holds_zero_claims_nothing():
    from caco_assets.evaluation.headline import Gain

    assert Gain("random", 0.01, -0.01, 0.03).verdict == "no difference shown"
    assert Gain("random", -0.1, -0.2, -0.05).verdict == "worse"


def test_a_line_without_a_figure_is_not_measured():
    assert not Line("x", "baseline", None, None, None, 0, 0, "why").measured
    assert Line("x", "baseline", 0.0, 0.0, 0.0, 1, 1, "").measured
