"""The evaluation matrix of tasks and encoders: lists its encoders, and scores and records single cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from caco_assets.core.errors import UserError
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.downstream.features.baselines import Candidate
    from caco_assets.downstream.score_rows import ScoreRow
    from caco_assets.downstream.scoring.score_task import ResolvedTask
    from caco_assets.pretraining.encoder.encoder import Encoder


@dataclass(frozen=True)
class Version:
    """A registered encoder, loaded."""

    encoder: Encoder
    uri: str
    """`models:/name/3`."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Product → content hash of what it was made from, as its registration says."""


class Versions(Protocol):
    """Interface to the registry, which implements it."""

    def names(self, settings: Settings) -> list[str]:
        """`name/3` of each version of the profile's model, oldest first."""
        ...

    def load(self, settings: Settings, name: str) -> Version:
        """The version of that name.

        Raises:
            UserError: there is none, or its files are damaged.
        """
        ...


@dataclass(frozen=True)
class EvaluationCell:
    """Scores of one encoder on one row of the profile."""

    resolved: ResolvedTask
    encoder: str
    rows: tuple[ScoreRow, ...]
    random: tuple[ScoreRow, ...]
    """Of the random network of the same backbone, for comparison; empty if the cell is a baseline's."""
    data: Mapping[str, str]
    """Product → content hash of what the encoder was made from; empty if unknown."""

    @property
    def main(self) -> ScoreRow | None:
        """The main score: `clean` before `paper`, frozen before fine-tuned; None if nothing was measured."""
        measured = [row for row in self.rows if row.status == "measured"]
        return min(measured, key=lambda row: (row.protocol != "clean", row.method == "fine_tune"), default=None)


def encoder_names(settings: Settings, versions: Versions) -> list[str]:
    """Names of all encoders of the matrix: baselines, what `caco encoder import` brought in, and registered versions."""
    imported = sorted(file.parent.name for file in settings.paths.encoders.glob("*/encoder.json"))
    return list(dict.fromkeys([*settings.downstream.baselines, *imported, *versions.names(settings)]))


def score_cell(settings: Settings, row: str, name: str, versions: Versions) -> EvaluationCell:
    """Score one encoder on one task of the profile and record its rows in `evaluations.parquet`.

    Rows measured before with the same weights, data and protocol come from the cache, which the scores of the profile, `caco
    evaluate` and the decision on a version share.

    Args:
        settings: the profile.
        row: a key of `downstream.tasks`.
        name: one of `encoder_names`.
        versions: where registered encoders come from.

    Raises:
        UserError: no such row or encoder, data absent or damaged, or lacking bands.
    """
    from caco_assets.downstream.evaluate import evaluations_file, record
    from caco_assets.downstream.scoring.score_task import resolve_tasks, score_task

    wanted = settings.downstream
    if row not in wanted.tasks:
        raise UserError(f"task={row}: no row of downstream.tasks of profile {settings.profile} ({', '.join(wanted.tasks)})")
    candidates, chance, data = _candidates(settings, name, versions)
    own = settings.model_copy(update={"downstream": wanted.model_copy(update={"tasks": {row: wanted.tasks[row]}})})
    (resolved,) = resolve_tasks(own)
    rows = tuple(score_task(own, resolved, candidates, own.paths.cache))
    record(evaluations_file(settings), rows)
    random = tuple(score_task(own, resolved, chance, own.paths.cache))
    return EvaluationCell(resolved, name, rows, random, data)


def _candidates(
    settings: Settings, name: str, versions: Versions
) -> tuple[Sequence[Candidate], Sequence[Candidate], Mapping[str, str]]:
    """The candidates, the untrained networks for comparison, and the data the encoder was made from."""
    from caco_assets.downstream.features.baselines import Candidate, baselines
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.pretrained.import_weights import encoder_folder

    seeds = settings.downstream.seeds
    if name in settings.downstream.baselines:
        return baselines([name], _like(settings), seeds), [], {}
    if "/" in name:
        version = versions.load(settings, name)
        encoder, uri, data = version.encoder, version.uri, version.data
    else:
        folder = encoder_folder(settings, name)
        encoder, uri, data = Encoder.load(folder), folder.relative_to(settings.home).as_posix(), {}
    return [Candidate.of(name, "candidate", seeds[0], encoder, uri)], baselines(["random"], encoder, seeds), data


def _like(settings: Settings) -> Encoder:
    """The profile's encoder, or an untrained equivalent, which gives the baselines their backbone and preprocessing."""
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.encoder.preprocessing import Preprocessing

    if (settings.paths.encoder / "encoder.json").exists():
        return Encoder.load(settings.paths.encoder)
    wanted = settings.pretraining
    return Encoder.random(wanted.backbone, Preprocessing.of_pack(wanted.bands, wanted.stretch, wanted.image_size), seed=0)
