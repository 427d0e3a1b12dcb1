"""The stages of downstream: `probe_set` for the probe during training, `scores` of encoders and baselines on every task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core import products
from caco_assets.core.stage_versions import stage_version
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.downstream.features.baselines import Candidate
    from caco_assets.downstream.score_rows import ScoreRow
    from caco_assets.pretraining.encoder.encoder import Encoder

logger = logging.getLogger(__name__)


def probe_set(settings: Settings) -> products.Product:
    """Make `probe_set.npz` from the row of `downstream.tasks` that `pretraining.probe_task` names.

    Raises:
        UserError: no row is named, its data is absent or damaged, it lacks a band of the encoder, or its labels are not classes.
    """
    from caco_assets.downstream.scoring.probe_set import TRAIN_IMAGES, VALIDATION_IMAGES, data_of_row, write_probe_set

    paths, data = settings.paths, data_of_row(settings, settings.pretraining.probe_task)
    logger.info(f"probe set: {data.task}, at most {TRAIN_IMAGES} + {VALIDATION_IMAGES} images")
    return products.produce(
        "probe_set",
        paths.probe_set,
        records=paths.records,
        recipe=stage_version("probe_set"),
        inputs={"data": data.version, "seed": settings.seed, "images": [TRAIN_IMAGES, VALIDATION_IMAGES]},
        make=lambda path: write_probe_set(path, data, settings.seed),
    )


def score(settings: Settings, encoders: Mapping[str, Path] | None = None) -> products.Product:
    """Make `scores.parquet`: every task, protocol, seed and size of the profile, for the encoders and the baselines.

    Args:
        settings: the profile.
        encoders: encoder name → folder; default: this profile's encoder, named after its objective. All are candidates.

    Returns:
        The product `scores`. Rows whose encoder, data and protocol have not changed are not measured again.

    Raises:
        UserError: no task in the profile, an unknown task, absent data of a task that is not optional, damaged data, no encoder.
    """
    from caco_assets.core.errors import UserError
    from caco_assets.downstream.features.baselines import Candidate, baselines
    from caco_assets.downstream.score_rows import write_rows
    from caco_assets.downstream.scoring.score_task import check_fits, resolve_tasks, score_task
    from caco_assets.pretraining.encoder.encoder import Encoder

    wanted = settings.downstream
    if not wanted.tasks:
        raise UserError(f"profile {settings.profile}: downstream.tasks is empty; name at least one task to judge the encoder on")
    work = resolve_tasks(settings)
    records = settings.paths.records
    if not encoders and (records / "encoder.json").exists():
        products.verify(records, products.recorded(records, "encoder"))
    folders = dict(encoders or {settings.pretraining.objective: settings.paths.encoder})
    loaded = {name: Encoder.load(folder) for name, folder in folders.items()}
    candidates = [
        Candidate.of(name, "candidate", wanted.seeds[0], encoder, _uri(settings, folders[name])) for name, encoder in loaded.items()
    ]
    like = next(iter(loaded.values()))
    candidates += imported(settings)
    candidates += baselines(wanted.baselines, like, wanted.seeds)

    for resolved in work:
        check_fits(resolved, candidates)

    def make(path: Path) -> dict[str, Any]:
        rows = [row for resolved in work for row in score_task(settings, resolved, candidates, settings.paths.cache)]
        write_rows(path, rows)
        return _facts(rows)

    inputs = {
        "contestants": [(who.name, who.role, who.seed, who.identity, who.reason, who.model_uri) for who in candidates],
        "data": {resolved.task_name: (resolved.version, resolved.reason) for resolved in work},
        # the encoders are listed above, and the allowed values change no score
        "downstream": wanted.model_dump(
            mode="json", exclude={"tasks": {"__all__": {"data"}}, "encoders": True, "allow_overlap": True}
        ),
        "seed": settings.seed,
    }
    paths = settings.paths
    return products.produce("scores", paths.scores, records=paths.records, recipe=stage_version("scores"), inputs=inputs, make=make)


def imported(settings: Settings) -> list[Candidate]:
    """The imported encoders in `downstream.encoders`; tasks whose data lacks their bands are not measured.

    Raises:
        UserError: there is no encoder of that name.
    """
    from caco_assets.downstream.features.baselines import Candidate
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.pretrained.import_weights import encoder_folder

    folders = [encoder_folder(settings, name) for name in settings.downstream.encoders]
    seed = settings.downstream.seeds[0]
    return [Candidate.of(each.name, "baseline", seed, Encoder.load(each), _uri(settings, each)) for each in folders]


def score_encoder(
    settings: Settings,
    encoder: Path | Encoder,
    role: str = "candidate",
    *,
    name: str | None = None,
    model_uri: str | None = None,
) -> list[ScoreRow]:
    """Score one encoder alone on every task of the profile: a registered version, or one in memory.

    Args:
        settings: the profile.
        encoder: a folder (`encoder.safetensors`, `encoder.json`) or the object.
        role: written to the rows.
        name: of the encoder in the rows; default the profile's objective.
        model_uri: written to the rows; default the folder.

    Returns:
        Its rows, without baselines. Rows measured before with the same weights, data and protocol come from the cache; the
        per-item tables for `metrics.paired.paired_gain` lie at `settings.paths.root / row.items`.

    Raises:
        UserError: as `score`.
    """
    from caco_assets.downstream.features.baselines import Candidate
    from caco_assets.downstream.scoring.score_task import resolve_tasks, score_task
    from caco_assets.pretraining.encoder.encoder import Encoder

    work = resolve_tasks(settings)
    folder = encoder if isinstance(encoder, Path) else None
    loaded = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
    uri = model_uri or (_uri(settings, folder) if folder else None)
    seeds = settings.downstream.seeds
    candidate = Candidate.of(name or settings.pretraining.objective, role, seeds[0], loaded, uri)
    return [row for resolved in work for row in score_task(settings, resolved, [candidate], settings.paths.cache)]


def score_imported(settings: Settings, name: str) -> list[ScoreRow]:
    """Score an encoder of `encoders/` (or of any folder) and store its rows next to it; the profile's own scores are unchanged.

    Raises:
        UserError: there is no such encoder; or as `score`.
    """
    from caco_assets.downstream.score_rows import write_rows
    from caco_assets.pretraining.pretrained.import_weights import encoder_folder

    folder = encoder_folder(settings, name)
    rows = score_encoder(settings, folder, name=folder.name)
    write_rows(settings.paths.encoder_scores(folder.name), rows)
    return rows


def _uri(settings: Settings, folder: Path) -> str:
    """The folder relative to home, so that moving the home changes no row."""
    return folder.relative_to(settings.home).as_posix() if folder.is_relative_to(settings.home) else folder.as_posix()


def _facts(rows: list[ScoreRow]) -> dict[str, Any]:
    """Counts, and a main score for every row of the profile: the candidate's `clean` linear probe if there is one."""
    measured = [row for row in rows if row.status == "measured"]
    main: dict[str, float | None] = {}
    for row in sorted(measured, key=lambda row: (row.role != "candidate", row.protocol != "clean", row.method != "linear_probe")):
        if row.role == "candidate":
            main.setdefault(row.row, row.value)
    return {"rows": len(rows), "measured": len(measured), "not_measured": len(rows) - len(measured), "accuracy": main}
