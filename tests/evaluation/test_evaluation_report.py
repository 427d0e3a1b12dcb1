import json
import re
from html.parser import HTMLParser

import pytest

from caco_assets.core.errors import UserError
from caco_assets.evaluation.report import charts
from caco_assets.evaluation.scorecard import Line
from caco_assets.evaluation.stage import report

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What matters of a page: whether tags close, what it would load, and its pictures, tables and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.loads, self.images, self.headers, self.ids, self.anchors = [], [], [], [], [], []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [values[key] for key in ("src", "srcset", "data", "poster") if key in values]
        if tag in ("link", "script", "iframe", "object"):
            self.loads.append(tag)
        if tag == "a":
            self.anchors.append(values["href"])
        if tag == "img":
            self.images.append(values)
        if tag == "th":
            self.headers.append(values)
        if "id" in values:
            self.ids.append(values["id"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def quiet(_line: str) -> None:
    pass


@pytest.fixture
def page(complete, monkeypatch):
    html = (report(complete).path / "report.html").read_text()
    return html, Page(html)


def test_the_page_loads_nothing_from_anywhere(page):
    html, parsed = page
    assert all(source.startswith("data:image/png;base64,") for source in parsed.loads)
    assert parsed.loads, "the made-up change histogram is a picture in the page"
    assert "the places that have changed most and least" in html
    assert not re.search(r"url\(|@import", html)
    assert not re.search(r"https?://", html)


def test_the_page_is_well_formed_and_its_anchors_exist(page):
    _, parsed = page
    assert parsed.open == []
    assert parsed.anchors
    assert {anchor.removeprefix("#") for anchor in parsed.anchors} <= set(parsed.ids)


def test_pictures_have_texts_and_tables_have_headers(page):
    html, parsed = page
    assert all(image["alt"] for image in parsed.images)
    assert all(header.get("scope") in ("col", "row") for header in parsed.headers)
    assert 'role="img" aria-label="Loss over 100 steps' in html
    assert '<html lang="en">' in html


def test_figures_on_the_page_are_those_of_the_scores(page):
    text = re.sub(r"\s+", " ", page[1].text)
    assert "82.0 % of 200 test images of eurosat_real right" in text
    assert "+22.0 points against random weights" in text
    assert "never saw a real pixel" in text
    for value in ("82.0", "60.0", "66.5", "76.0", "93.1"):
        assert value in text


def test_what_was_not_measured_says_why(page):
    assert "not measured: ImageNet weights of resnet18: not in the local cache" in page[1].text


def test_data_training_validation_and_lineage_are_on_the_page(page, complete):
    _, parsed = page
    text = re.sub(r"\s+", " ", parsed.text)
    assert "too cloudy cloudy" in text
    assert "the loss went from 4.98 to 3.02" in text
    assert "1 warning pack: 3 rows are odd" in text
    assert "eurosat_twin: embedded twins of a benchmark" in text
    for record in complete.paths.records.glob("*.json"):
        if record.stem != "report":
            assert json.loads(record.read_text())["content_hash"][:12] in text


def test_words_from_data_cannot_become_markup(page):
    html, _ = page
    assert "<odd>" not in html
    assert "&lt;odd&gt;" in html


def test_light_and_dark_colours_have_contrast(page):
    """WCAG AA: 4.5 for text. Each theme's ink, soft ink and accents against its paper and card."""
    blocks = re.findall(r":root \{(.*?)\}", page[0], re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for ink in ("ink", "soft", "accent", "baseline", "published", "warn"):
            for ground in ("paper", "card"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(one: str, other: str) -> float:
    lights = sorted((_light(one), _light(other)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def _light(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_scores_alone_are_enough_for_a_report(scored):
    product = report(scored)
    assert Page((product.path / "report.html").read_text()).open == []
    assert {path.name for path in product.path.iterdir()} == {"report.html", "model_card.md", "scorecard.json"}


def test_without_scores_there_is_no_report(settings):
    with pytest.raises(UserError, match="scores: not made yet"):
        report(settings)


def test_an_unchanged_report_is_reused_and_is_the_same_when_made_again(complete):
    first = report(complete)
    assert report(complete).reused
    (complete.paths.records / "report.json").unlink()
    assert report(complete).content_hash == first.content_hash


def test_a_new_validation_result_makes_a_new_report(complete):
    report(complete)
    file = complete.paths.data_docs / "results" / "pack.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps({**result, "validated_at": "2027-01-01T00:00:00"}))
    assert report(complete).reused
    file.write_text(json.dumps({**result, "warnings": []}))
    assert not report(complete).reused


def test_the_model_card_and_the_json_say_the_same(complete):
    product = report(complete)
    card = (product.path / "model_card.md").read_text()
    assert "| CACo | candidate | 82.0 |" in card
    assert "| ImageNet weights | baseline | not measured | ImageNet weights of resnet18" in card
    sections = json.loads((product.path / "scorecard.json").read_text())["sections"]
    assert len(sections) == product.facts["sections"] == 5


def test_the_scorecard_is_said_in_the_terminal(logged, complete):
    said = logged()
    report(complete)
    assert any("eurosat_real · clean · linear probe" in line for line in said)


@pytest.mark.parametrize("values", [(0.1, 0.9), (0.93, 0.96), (0.0, 0.02), (0.5, 1.0), (0.97, 1.0)])
def test_the_scale_holds_every_figure_and_its_quarters_are_round(values):
    lines = [Line("x", "baseline", value, value, value, 1, 1, "") for value in values]
    low, high = charts.bounds(lines)
    assert 0 <= low <= min(values)
    assert max(values) <= high <= 1
    assert round(100 * (high - low) / 4, 6) in (5, 10, 20, 25)


def test_a_chart_sentence_cannot_break_out_of_its_attribute():
    assert '"><script>' not in charts.curve([1, 2], [1, 2], [1, 2], '"><script>')
