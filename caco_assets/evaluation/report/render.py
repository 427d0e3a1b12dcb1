"""Renders scores, facts and images as the HTML report and the Markdown model card."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from caco_assets.core.markup import markdown_environment
from caco_assets.core.products import Product
from caco_assets.core.stage_versions import stage_version
from caco_assets.evaluation.headline import Headline, headline
from caco_assets.evaluation.published import published
from caco_assets.evaluation.report import charts, contents
from caco_assets.evaluation.scorecard import Line, Scorecard, percent
from caco_assets.settings import Settings

NAMES = {"random": "random weights", "imagenet": "ImageNet weights", "raw_statistics": "raw image statistics"}
_TITLES = {
    "caco": "CACo",
    "seco": "SeCo",
    "teco": "TeCo",
    "gssl": "GSSL",
    "moco_v2": "MoCo v2",
    "moco_v2_tp": "MoCo v2 with temporal positives",
    "simclr": "SimCLR",
    "simclr_seco": "SimCLR SeCo",
    "simclr_caco": "SimCLR CACo",
}
ABOUT = {
    "clean": "What a careful reader would want: fixed splits, every choice made on validation images, one look at the test images, "
    "intervals, and nearest neighbours beside the probe.",
    "paper": "What the published figures used, so that they can be compared: Adam on a linear layer over un-normalised RGB "
    "at 64 px, last epoch, tested on the validation list.",
}
_GROUPS = {
    "ladder": "From SeCo to CACo, one idea at a time",
    "change_estimate": "Which estimate of change",
    "simclr": "The same ideas without a queue",
    "elsewhere": "SeCo on other tasks",
    "horizon": "Horizon: higher marks, other protocols",
}
_SOURCES = {
    "synthetic": "the embedded Earth (procedural pictures, not a single real pixel)",
    "folder": "a folder of GeoTIFFs",
    "catalog": "a STAC catalog",
    "stac_api": "a STAC API",
    "seco_layout": "a set in the layout of SeCo and CACo",
}
_FACTS = (
    ("locations", "places", "places sampled"),
    ("locations", "cities", "cities"),
    ("quarantine", "places_complete", "places with enough clear dates"),
    ("quarantine", "chips", "chips archived"),
    ("pack", "dates", "dates in the pack"),
)
_TASKS = {
    "eurosat": "EuroSAT",
    "eurosat_ms": "EuroSAT, 13 bands",
    "bigearthnet": "BigEarthNet",
    "oscd": "OSCD",
    "dynamicearthnet": "DynamicEarthNet",
    "levir_cd": "LEVIR-CD",
    "whu_cd": "WHU-CD",
    "loveda": "LoveDA",
    "potsdam": "Potsdam",
    "vaihingen": "Vaihingen",
    "aid": "AID",
}
_LIBRARIES = ("caco_assets", "torch", "timm", "scikit-learn", "numpy")


@dataclass(frozen=True)
class Tile:
    """One large figure at the top of the page."""

    who: str
    value: str
    """In percent; empty if not measured."""
    note: str
    role: str


def render(settings: Settings, card: Scorecard, made: dict[str, Product]) -> tuple[str, str]:
    """Write the page and the card.

    Args:
        settings: the profile.
        card: scores beside published figures.
        made: recorded products, by name.

    Returns:
        HTML and Markdown. The HTML is self-contained.
    """
    loader = PackageLoader("caco_assets.evaluation.report")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    plain = markdown_environment(loader=loader, trim_blocks=True)
    values = _values(settings, card, made)
    style = loader.get_source(page, "style.css")[0]
    return page.get_template("report.html.j2").render(style=style, **values), plain.get_template("model_card.md.j2").render(
        **values
    )


def _values(settings: Settings, card: Scorecard, made: dict[str, Product]) -> dict[str, Any]:
    main, training = headline(settings, card), contents.training(settings)
    return {
        "settings": settings,
        "card": card,
        "headline": main,
        "title": _title(settings, made),
        "lead": _lead(settings, main) if main else "Nothing could be measured yet.",
        "tiles": _tiles(settings, main) if main else [],
        "protocols": [
            (name, sections)
            for name in ("clean", "paper")
            if (sections := sorted((s for s in card.sections if s.protocol == name), key=lambda s: s.row in twin_rows(settings)))
        ],
        "about": ABOUT,
        "main_table": _main_table(),
        "literature": [(words, [row for row in published() if row.group == group]) for group, words in _GROUPS.items()],
        "data_sentence": _data_sentence(settings, made),
        "data_facts": _data_facts(settings, made),
        "pictures": contents.pictures(settings),
        "change_figures": contents.change_figures(settings),
        "clear": contents.clear_fractions(settings),
        "quarantine": contents.quarantine(settings),
        "training": training,
        "training_sentence": _training_sentence(settings, training),
        "training_settings": list(settings.pretraining.model_dump(mode="json").items()),
        "validations": contents.validations(settings),
        "products": list(made.values()),
        "versions": _versions(),
        "limits": _limits(settings, card, main),
        "bounds": charts.bounds,
        "scale": charts.scale,
        "interval": charts.interval,
        "percent": percent,
        "points": points,
        "name": lambda encoder: NAMES.get(encoder, _TITLES.get(encoder, encoder)),
        "facts": _facts,
        "task_name": lambda task: _TASKS.get(task, task),
    }


def points(share: float) -> str:
    """A difference in percentage points with its sign: `+3.1`, `−0.6`."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _main_table() -> dict[str, Any]:
    """The published main table with methods as rows and (task, metric, backbone) as columns."""
    rows = [row for row in published() if row.group == "table"]
    columns = list(dict.fromkeys((row.task, row.metric, row.backbone) for row in rows))
    values = {(row.method, row.task, row.metric, row.backbone): row.value for row in rows}
    methods = dict.fromkeys(row.method for row in rows)
    return {
        "columns": columns,
        "rows": [(method, [values.get((method, *column)) for column in columns]) for method in methods],
        "source": rows[0].source,
    }


def _title(settings: Settings, made: dict[str, Product]) -> str:
    wanted = settings.pretraining
    places = made["pack"].facts.get("places") if "pack" in made else None
    where = "the embedded Earth" if settings.imagery.source.kind == "synthetic" else "Sentinel-2"
    count = f"{places} places of " if places else ""
    backbone = re.sub(r"^resnet(\d+)$", r"ResNet-\1", wanted.backbone)
    return f"{backbone}, trained with {_TITLES.get(wanted.objective, wanted.objective)} on {count}{where}"


def _lead(settings: Settings, main: Headline) -> str:
    section, line = main.section, main.candidate
    low, high = percent(line.low), percent(line.high)
    sentence = f"A linear probe on its frozen features gets {percent(line.value)} % of {line.n} test images of {section.row} right "
    sentence += f"(95 % interval {low} to {high}; protocol {section.protocol}, {section.size} px)."
    if main.real and settings.imagery.source.kind == "synthetic":
        sentence += " These images are real, and the encoder never saw a real pixel."
    parts = [f"{points(gain.value)} points against {NAMES.get(gain.over, gain.over)}" for gain in main.gains]
    return f"{sentence} On the same images: {', '.join(parts)}." if parts else sentence


def _tiles(settings: Settings, main: Headline) -> list[Tile]:
    section, ours = main.section, main.candidate
    name = _TITLES.get(ours.encoder, ours.encoder)
    knn = "" if ours.low is None else f"95 %: {percent(ours.low)} – {percent(ours.high)}"
    tiles = [Tile(f"{name} (ours)", percent(ours.value), knn, "candidate")]
    for line in section.lines:
        if line.role == "baseline":
            tiles.append(Tile(NAMES.get(line.encoder, line.encoder), percent(line.value), _tile_note(line), "baseline"))
    wanted = [row for row in published() if (row.group, row.task, row.method) == ("table", section.task, "CACo")]
    for row in wanted:
        if row.backbone == settings.pretraining.backbone:
            note = "100 000 real images, protocol paper" + ("" if section.protocol == "paper" else ": not comparable")
            tiles.append(Tile(f"{row.method}, published", percent(row.share), note, "published"))
    return tiles


def _tile_note(line: Line) -> str:
    if not line.measured:
        return line.note.partition(":")[2].partition("(")[0].strip(" ,") or line.note
    seeds = f", {line.seeds} seeds" if line.seeds > 1 else ""
    return f"95 %: {percent(line.low)} – {percent(line.high)}{seeds}"


def _data_sentence(settings: Settings, made: dict[str, Product]) -> str:
    imagery, pack = settings.imagery, made.get("pack")
    count = f"{pack.facts['places']} places" if pack and "places" in pack.facts else f"{settings.sampling.places} places"
    return (
        f"{count} from {_SOURCES[imagery.source.kind]}; two periods {settings.gap_years} years apart, the late one ending "
        f"{settings.vintage}, up to {imagery.seasons} dates in each; chips of {imagery.chip_size}×{imagery.chip_size} pixels at "
        f"{imagery.resolution:g} m, bands {', '.join(settings.pretraining.bands)} for training."
    )


def _data_facts(settings: Settings, made: dict[str, Product]) -> list[tuple[str, str]]:
    facts = [
        (words, str(made[product].facts[key])) for product, key, words in _FACTS if product in made and key in made[product].facts
    ]
    facts.append(("minimum clear share", f"{settings.imagery.min_clear:.0%}"))
    return facts


def _training_sentence(settings: Settings, training: dict[str, Any]) -> str:
    wanted = settings.pretraining
    sentence = f"Objective {_TITLES.get(wanted.objective, wanted.objective)} ({wanted.fidelity}), {wanted.epochs} epochs of "
    sentence += (
        f"batches of {wanted.batch_size} at {wanted.image_size} px, queue {wanted.queue_size}, temperature {wanted.temperature:g}."
    )
    if "steps" in training:
        sentence += f" {training['steps']} steps; the loss went from {training['first_loss']:.2f} to {training['last_loss']:.2f}."
    return sentence


def _versions() -> list[tuple[str, str]]:
    found = [("Python", platform.python_version())]
    for library in _LIBRARIES:
        try:
            found.append((library, version(library)))
        except PackageNotFoundError:
            # run from a checkout without installation
            found.append((library, "not installed as a package"))
    stages = ("locations", "scenes", "archive", "pack", "encoder", "scores", "report")
    return [*found, ("recipes", ", ".join(f"{stage} {stage_version(stage)}" for stage in stages))]


def _limits(settings: Settings, card: Scorecard, main: Headline | None) -> list[str]:
    limits = [
        "The protocols clean and paper answer different questions; their figures are never to be compared with each other.",
        "Intervals come from resampling the test images; they do not cover another training run, another split or another region.",
        "Preprocessing can outweigh the method: compare encoders at one input size, and always with the baselines beside them.",
    ]
    if settings.imagery.source.kind == "synthetic":
        limits.append(
            "The training pictures are procedural. A gain over random weights shows that the chain works, not that this "
            "encoder is fit for a task; train on real imagery for that."
        )
    twins = sorted({section.row for section in card.sections if section.row in twin_rows(settings)})
    if twins:
        limits.append(
            f"{', '.join(twins)}: embedded twins of a benchmark, in its layout but with procedural pictures; no published "
            "figure may stand beside them."
        )
    if main is not None and main.candidate.n < 500:
        limits.append(f"The main figure rests on {main.candidate.n} images only: mind the width of its interval.")
    missing = sorted(
        {NAMES.get(line.encoder, line.encoder) for section in card.sections for line in section.lines if not line.measured}
    )
    if missing:
        limits.append(f"Not measured everywhere: {', '.join(missing)}; the reasons stand in the tables.")
    return limits


def twin_rows(settings: Settings) -> set[str]:
    """Rows measured on embedded twins."""
    return {row for row, task in settings.downstream.tasks.items() if task.data is None}


def _facts(product: Product) -> str:
    """Scalar facts of a product in one line."""
    shown = {key: value for key, value in product.facts.items() if isinstance(value, int | float | str) and len(str(value)) <= 24}
    return ", ".join(
        f"{key.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
        for key, value in shown.items()
    )
