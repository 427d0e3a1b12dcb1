"""Writes the version and settings that each DVC stage depends on, one small JSON file per stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.stage_versions import stage_version
from caco_assets.settings import Settings


def write_stage_settings(settings: Settings) -> Path:
    """Write what each DVC stage depends on besides its inputs: its version and the settings that determine its output."""
    folder = settings.paths.root / "settings"
    for stage, values in stage_settings(settings).items():
        path, text = folder / f"{stage}.json", json.dumps(values, indent=1, sort_keys=True) + "\n"
        if not path.exists() or path.read_text() != text:
            write_atomic(path, text)
    return folder


def stage_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """DVC stage → stage version and the settings that determine its output, JSON-able and without machine paths."""
    from caco_assets.sampling.fingerprint_inputs import decisive

    everything = settings.model_dump(mode="json", exclude={"home"})
    imagery: dict[str, Any] = {**everything["imagery"], "source": {**everything["imagery"]["source"]}}
    imagery["source"].pop("path", None)
    if imagery["source"].get("calendar") in (None, settings.vintage):
        imagery["source"].pop("calendar", None)  # it has no effect then
    imagery.pop("workers")
    imagery.pop("connections")
    imagery.pop("launcher")
    imagery.pop("archive")
    imagery.pop("limits", None)
    time = {"vintage": settings.vintage, "gap_years": settings.gap_years}
    wanted = everything["pretraining"]
    pack = {"bands": wanted["pack_bands"] or wanted["bands"], "stretch": wanted["stretch"]}
    probed = settings.downstream.tasks.get(settings.pretraining.probe_task or "")
    scenes = {"recipe": [stage_version("catalog"), stage_version("scenes")], "seed": settings.seed, **time, "imagery": imagery}
    return {
        "locations": {"recipe": stage_version("locations"), "seed": settings.seed, "sampling": decisive(settings)},
        "scenes": scenes,
        "archive": {"recipe": stage_version("archive"), "imagery": imagery},
        "probe_set": {
            "recipe": [stage_version("benchmarks"), stage_version("probe_set")],
            "seed": settings.seed,
            "bands": everything["pretraining"]["bands"],
            "row": probed and probed.model_dump(mode="json", include={"task", "limit"}),
            "benchmark_images_per_class": imagery["source"].get("benchmark_images_per_class"),
        },
        "pack": {"recipe": stage_version("pack"), "pack": pack, "min_seasons": imagery["min_seasons"]},
    }
