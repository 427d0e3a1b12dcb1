"""Names, values and messages that hold markup: they are shown as text in every page, card and chart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.core.markup import escape_markdown, escape_tags
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.evaluation.report import charts, render
from caco_assets.evaluation.scorecard import Line, Scorecard, Section
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing
from caco_assets.registry.register import _model_card
from caco_assets.registry.release.model_card import write_model_card
from caco_assets.settings import Settings
from caco_assets.validation import data_docs

EVIL = "<img src=x onerror=alert(1)>|[a](javascript:alert(1))\n\n# a title"
TAGS = re.compile(r"<(?=[A-Za-z/!?])")


@pytest.fixture
def evil(settings: Settings) -> Settings:
    """Settings whose profile and licence hold markup."""
    registry = settings.registry.model_copy(update={"data_licence": EVIL})
    return settings.model_copy(update={"profile": EVIL, "vintage": EVIL, "registry": registry})


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.random("resnet10t", Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32), 0)


def _safe(card: str) -> None:
    assert not TAGS.search(card)
    assert "](javascript" not in card
    assert "\n# a title" not in card
    assert "&lt;img src=x" in card


def test_a_release_card_shows_the_names_as_text(evil: Settings, encoder: Encoder) -> None:
    tags = {"profile": EVIL, "vintage": EVIL, "code_version": EVIL, "data.pack": EVIL, "scores": EVIL}
    version = SimpleNamespace(name=EVIL, version="1", tags=tags)
    names = dict.fromkeys(("row", "task", "encoder", "protocol", "method", "metric", "data_version", "model_uri", "note"), EVIL)
    row = ScoreRow(
        **names, role="candidate", size=32, seed=0, value=0.5, ci_low=0.4, ci_high=0.6, n=10, status="measured", items=None
    )
    described = {"recipe": {"objective": EVIL, "optimizer": EVIL}, "data": {"parent": {"uri": EVIL}}}
    card = write_model_card(evil, cast("Any", version), encoder, described, [row], "![Places](places.png)")
    _safe(card)
    assert "![Places](places.png)" in card
    (line,) = [line for line in card.splitlines() if "50.0%" in line]
    assert line.count("|") == 6, "a cell of its own"


def test_the_description_of_a_registered_version_shows_the_names_as_text(evil: Settings, encoder: Encoder) -> None:
    _safe(_model_card(evil, encoder, {"recipe": {"objective": EVIL}}, {EVIL: EVIL}, EVIL))


def test_the_report_and_its_card_show_the_names_as_text(evil: Settings) -> None:
    line = Line(encoder=EVIL, role=EVIL, value=0.5, low=0.4, high=0.6, n=10, seeds=1, note=EVIL)
    missing = Line(encoder=EVIL, role="baseline", value=None, low=None, high=None, n=0, seeds=0, note=EVIL)
    section = Section(EVIL, EVIL, "clean", "linear_probe", 32, EVIL, (line, missing))
    page, card = render.render(evil, Scorecard((section,)), {})
    _safe(card)
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_chart_takes_no_markup_from_a_role() -> None:
    line = Line(encoder="a", role='"><script>', value=0.5, low=None, high=None, n=1, seeds=1, note="")
    assert "<script>" not in charts.interval(line)


def test_the_data_docs_show_values_of_the_data_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []

    def without_great_expectations(scratch: Path, results: list[dict[str, Any]]) -> None:
        """Its pages show values as they are, and take seconds."""
        saved.extend(results)
        scratch.mkdir()

    monkeypatch.setattr(data_docs, "_render", without_great_expectations)
    result = {"product": EVIL, "blocking_failed": [EVIL], "warnings": [EVIL], "table": [{"table": EVIL}], "validated_at": EVIL}
    found = {"result": {"partial_unexpected_list": [EVIL]}}
    index = data_docs.build_site(tmp_path, [{**result, "evaluated": 1}], [{"results": [found]}]).read_text()
    assert not TAGS.search(json.dumps(saved))
    assert "<img" not in index
    assert "default-src 'none'" in index


@given(st.text(max_size=60))
def test_no_text_becomes_a_tag_a_link_a_cell_or_a_line(text: str) -> None:
    shown = escape_markdown(text)
    assert not TAGS.search(shown)
    assert len(shown.splitlines()) <= 1
    assert "|" not in shown
    assert not re.search(r"\][(\[:]", shown)


@pytest.mark.parametrize("text", ["caco-tiny", "B04, B03", "0.5 < 0.7 > 0.1", "§ 3 – `a_b`", "[0, 1]", "R&D <3", ""])
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert escape_markdown(text) == text
    assert escape_tags({"a": [text, 1, None]}) == {"a": [text, 1, None]}
