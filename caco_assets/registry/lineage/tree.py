"""The lineage of a version as a tree, from its encoder to its places, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from caco_assets.registry.lineage.record import Lineage, read
from caco_assets.registry.versions import GATE, SCORES, aliases, find
from caco_assets.resources.mlflow.client import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_SHORT = 12


@dataclass(frozen=True)
class Node:
    """One line of the tree and the lines below it."""

    text: str
    below: tuple[Node, ...] = ()


def lineage_tree(tracking: Tracking, uri: str) -> str:
    """The tree of a version.

    Raises:
        UserError: no such version, or its record cannot be read.
    """
    version = find(tracking, uri)
    return "\n".join(_lines(_version(tracking, version, read(tracking, version))))


def lineage_json(tracking: Tracking, uri: str) -> dict[str, Any]:
    """Everything known about a version, JSON-able; raises as `lineage_tree`."""
    version = find(tracking, uri)
    lineage = read(tracking, version)
    return {
        "uri": f"models:/{version.name}/{version.version}",
        "aliases": _aliases(tracking, version),
        "run_id": version.run_id,
        "registered": _when(version),
        "tags": dict(version.tags),
        "parent": lineage.parent,
        "lineage": asdict(lineage),
    }


def _version(tracking: Tracking, version: ModelVersion, lineage: Lineage) -> Node:
    tags, named = version.tags, _aliases(tracking, version)
    recipe = lineage.encoder.get("recipe") or {}
    what = f"{recipe.get('objective', '?')} {lineage.encoder.get('architecture') or recipe.get('backbone', '')}".strip()
    parent = lineage.parent
    facts = {
        "encoder": f"{what}, identity {str(lineage.encoder.get('identity'))[:_SHORT]}",
        "parent": f"warm-started from {parent['uri']}" if parent else "none: trained from scratch",
        "scores": tags.get(SCORES, "none"),
        "gate": tags.get(GATE, "no decision yet"),
        "run": f"{version.run_id or 'none'} in MLflow",
        "code": f"{lineage.code}, caco_assets {lineage.package or '?'}",
        "recipes": ", ".join(f"{stage} {number}" for stage, number in lineage.recipes.items()) or "not recorded",
        "environment": ", ".join(f"{name} {value[:_SHORT]}" for name, value in lineage.environment.items()) or "not recorded",
        "settings": f"profile {lineage.profile}, vintage {lineage.vintage}, seed {lineage.settings.get('seed', '?')}",
    }
    width = max(map(len, facts))
    title = f"models:/{version.name}/{version.version}" + (f" ({', '.join(named)})" if named else "")
    nodes = [Node(f"{name:<{width}}  {text}") for name, text in facts.items()]
    return Node(f"{title}, registered {_when(version)}", (*nodes, Node("data", tuple(_data(lineage)))))


def _data(lineage: Lineage) -> Iterator[Node]:
    """The data as a tree: each product above its inputs; a product with several uses appears once."""
    if not lineage.stages:
        yield from (Node(f"{name}  {product['content_hash']}") for name, product in lineage.products.items())
        return
    made_by = {out["path"]: stage for stage, entry in lineage.stages.items() for out in entry.get("outs", [])}
    used = {dep["path"] for entry in lineage.stages.values() for dep in entry.get("deps", [])}
    shown: set[str] = set()

    def node(stage: str) -> Node:
        shown.add(stage)
        entry = lineage.stages[stage]
        sources = {made_by[dep["path"]] for dep in entry.get("deps", []) if dep["path"] in made_by} - {stage}
        below = [node(source) for source in sorted(sources, key=list(lineage.stages).index, reverse=True) if source not in shown]
        return Node("; ".join(_out(out) for out in entry["outs"]), tuple(below))

    for stage, entry in lineage.stages.items():
        if not any(out["path"] in used for out in entry.get("outs", [])):
            yield node(stage)


def _out(out: dict[str, Any]) -> str:
    files = f", {out['nfiles']} files" if "nfiles" in out else ""
    return f"{Path(out['path']).stem}  {out['md5']}  {tqdm.format_sizeof(out.get('size', 0), 'B')}{files}"


def _aliases(tracking: Tracking, version: ModelVersion) -> list[str]:
    return sorted(alias for alias, number in aliases(tracking, version.name).items() if number == str(version.version))


def _when(version: ModelVersion) -> str:
    return datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")


def _lines(node: Node, lead: str = "", below: str = "") -> Iterator[str]:
    yield lead + node.text
    for index, child in enumerate(node.below):
        last = index == len(node.below) - 1
        yield from _lines(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
