"""The model card of a released version: what it is, how well it does and how surely, what it was made of, what it is not for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases.alias_moves import OVERRIDDEN
from caco_assets.registry.promotion.decision import Decision
from caco_assets.registry.promotion.override import TAG as OVERRIDE
from caco_assets.registry.versions import DATA, DECISION, GATE, SCORES
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TEMPLATE = "mlflow/release_card.md.j2"
DESCRIPTION_LENGTH = 5000
"""Characters that MLflow's databases take as a description."""
TRAINING_FACTS = ("objective", "epochs", "batch_size", "image_size", "learning_rate", "optimizer", "queue_size", "seed")
"""Keys of `recipe` in `encoder.json` that the card shows; an imported encoder has none of them."""
_SOURCES = {
    "synthetic": "the embedded Earth (drawn by this package; not a single real pixel).",
    "folder": "a folder of GeoTIFFs.",
    "catalog": "a static STAC catalog.",
    "stac_api": "a STAC API.",
    "seco_layout": "a published set in the layout of SeCo and CACo.",
}
_LICENCES = {
    "synthetic": "Apache-2.0, as this package that draws it.",
    "stac_api": "the provider's; Sentinel-2: free, full and open, with the notice 'Contains modified Copernicus Sentinel data'.",
}
_FORMS = {"timm": "a state dict for timm", "exported": "torch.export", "onnx": "ONNX"}
_UNKNOWN_LICENCE = "not stated (registry.data_licence); ask whoever supplied the imagery."


def write_card(
    settings: Settings,
    version: ModelVersion,
    encoder: Encoder,
    description: Mapping[str, Any],
    rows: Sequence[ScoreRow],
    places: str,
) -> str:
    """The card as Markdown.

    Args:
        settings: of the profile that releases it.
        version: with its tags.
        encoder: loaded from it.
        description: its `encoder.json`.
        rows: the scores that its decision rests on; none: the line of figures in its tags.
        places: a sentence or picture that shows where its pixels come from.
    """
    from jinja2 import Environment, StrictUndefined

    tags, recipe, data = version.tags, description.get("recipe", {}), description.get("data") or {}
    decision = Decision.from_json(tags[DECISION]) if DECISION in tags else None
    source = settings.imagery.source.kind
    values = {
        "model": version.name,
        "version": version.version,
        "objective": recipe.get("objective", "an imported encoder"),
        "architecture": encoder.architecture,
        "parameters": f"{sum(weight.numel() for weight in encoder.backbone.parameters()) / 1e6:.1f}",
        "bands": ", ".join(encoder.preprocessing.bands),
        "width": encoder.width,
        "verdict": _verdict(tags, decision),
        "rows": [_row(row) for row in rows if row.status == "measured" and row.value is not None],
        "scores": tags.get(SCORES, "not scored"),
        "profile": tags.get("profile", settings.profile),
        "vintage": tags.get("vintage", settings.vintage),
        "data_sentence": _SOURCES[source],
        "data": {name.removeprefix(DATA): digest for name, digest in tags.items() if name.startswith(DATA)},
        "licence": settings.registry.data_licence or _LICENCES.get(source, _UNKNOWN_LICENCE),
        "places": places,
        "training": _training(recipe),
        "code": tags.get("code_version", "unknown"),
        "parent": (data.get("parent") or {}).get("uri") if isinstance(data.get("parent"), dict) else None,
        "limits": _limits(settings, encoder, rows),
        "forms": [_FORMS[form] for form in settings.registry.forms],
        "rules": [finding.row() for finding in decision.findings] if decision else [],
    }
    # Markdown, so nothing is escaped
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    return environment.from_string(_template(settings)).render(values).strip() + "\n"


def as_description(card: str, where: str) -> str:
    """The card as MLflow shows it beside the version; cut at a line where it is too long, with word of where all of it lies."""
    if len(card) <= DESCRIPTION_LENGTH:
        return card
    end = f"\n\n… the whole card: {where}\n"
    kept = card[: DESCRIPTION_LENGTH - len(end)]
    return kept[: kept.rfind("\n")] + end


def _template(settings: Settings) -> str:
    """The home folder's, else the package's."""
    from caco_assets.resources.dvc.home import template

    path = settings.home / TEMPLATE
    return (path if path.is_file() else template(TEMPLATE)).read_text()


def _verdict(tags: Mapping[str, str], decision: Decision | None) -> str:
    if tags.get(GATE) == OVERRIDDEN:
        said = json.loads(tags[OVERRIDE])
        return f"Promoted by {said['by']} against {', '.join(said['rules'])}: {said['reason']}."
    if decision is None or not decision.passed:
        return "**It has not passed the promotion policy; a person made it the champion.**"
    return f"It passed the promotion policy{f' against version {decision.champion}' if decision.champion else ''}."


def _row(row: ScoreRow) -> dict[str, Any]:
    known = row.ci_low is not None and row.ci_high is not None
    return {
        "on": row.row,
        "how": f"{row.metric}, {row.protocol} {row.method}, {row.size} px, seed {row.seed}",
        "value": f"{row.value:.1%}",
        "interval": f"{row.ci_low:.1%} – {row.ci_high:.1%}" if known else "–",
        "n": row.n,
    }


def _training(recipe: Mapping[str, Any]) -> str:
    named = [f"{name} {recipe[name]}" for name in TRAINING_FACTS if name in recipe]
    return f"{', '.join(named)}." if named else "The training settings are not recorded."


def _limits(settings: Settings, encoder: Encoder, rows: Sequence[ScoreRow]) -> list[str]:
    limits = [
        f"It reads {', '.join(encoder.preprocessing.bands)} as surface reflectance; other bands, top-of-atmosphere values or "
        "another ground resolution than that of its training are not what it has learnt from.",
        "Its features are of whole images; what an image holds is for a classifier on top to say.",
        "Intervals are over test images, of one data set and mostly one seed: other places may do worse.",
    ]
    if settings.imagery.source.kind == "synthetic":
        limits.insert(0, "Trained on a drawn Earth: how well it does on real imagery is not known from these figures.")
    if any(row.row.endswith("twin") for row in rows):
        limits.append("Rows named `…_twin` are measured on drawn twins of the benchmarks, not on the benchmarks.")
    return limits
