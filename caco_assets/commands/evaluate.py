"""`caco evaluate`: evaluates any encoder on one task or all tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from caco_assets.commands.shared import profile_option, settings_of
from caco_assets.core.errors import UserError
from caco_assets.settings import Settings, TaskData

if TYPE_CHECKING:
    from caco_assets.downstream.evaluate import TaskRequest
    from caco_assets.downstream.score_rows import ScoreRow
    from caco_assets.pretraining.encoder.encoder import Encoder


@click.command()
@profile_option
@click.option("--task", "tasks", multiple=True, help="A name of the table of tasks; may be given several times.")
@click.option("--all", "everything", is_flag=True, help="Every task of the table.")
@click.option(
    "--encoder", "uri", help="models:/name@champion, a folder, or a name of `caco encoder import`; default the profile's."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Archive or folder as its authors ship it; default the profile's, else the twin.",
)
@click.option("--twins", is_flag=True, help="Embedded twins, also where the profile knows archives.")
@click.option("--protocol", "protocols", type=click.Choice(["paper", "clean"]), multiple=True, help="Default both.")
@click.option(
    "--size", "sizes", type=click.IntRange(min=32), multiple=True, help="Input sides of `clean`; default 64, on archives 224 too."
)
@click.option("--fine-tune", is_flag=True, help="Train the whole network too.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many images per split.")
@click.option("--baselines/--no-baselines", default=True, help="Random weights, ImageNet and pixel statistics beside it.")
def evaluate(
    profile: str,
    tasks: tuple[str, ...],
    everything: bool,
    uri: str | None,
    data: Path | None,
    twins: bool,
    protocols: tuple[str, ...],
    sizes: tuple[int, ...],
    fine_tune: bool,
    limit: int | None,
    baselines: bool,
) -> None:
    """Downstream: evaluate any encoder on one task or all, print and record the rows."""
    from caco_assets.downstream.evaluate import beside, evaluations_file
    from caco_assets.downstream.evaluate import evaluate as run
    from caco_assets.downstream.scoring.gpu_pool import gpus
    from caco_assets.downstream.tasks import TASKS, find_task

    settings = settings_of(profile)
    if everything == bool(tasks):
        raise UserError(f"name tasks with --task, or --all; allowed: {', '.join(TASKS)}")
    names = list(TASKS) if everything else [find_task(name).name for name in dict.fromkeys(tasks)]
    if data is not None and (len(names) > 1 or twins):
        raise UserError(f"--data={data}: belongs to one --task and to no twin")
    encoder, name = _encoder(settings, uri)
    request_of = partial(
        request_of_task, settings, data=data, twins=twins, protocols=protocols, sizes=sizes, fine_tune=fine_tune, limit=limit
    )
    requests = [request_of(task=task, optional=everything) for task in names]
    rows = run(settings, requests, encoder, name=name, model_uri=uri, with_baselines=baselines, gpus=gpus())
    click.echo(_table(beside(evaluations_file(settings), rows), [request.task_name for request in requests if request.twin]))
    click.echo(f"{len(rows)} rows: {evaluations_file(settings)}")


def _encoder(settings: Settings, uri: str | None) -> tuple[Encoder, str]:
    """The encoder and its name in the rows."""
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.pretrained.import_weights import encoder_folder

    if uri is None:
        return Encoder.load(settings.paths.encoder), settings.pretraining.objective
    if uri.startswith("models:/"):
        from caco_assets.registry.package.mlflow_model import load_encoder
        from caco_assets.resources.mlflow.client import open_tracking

        return load_encoder(uri, open_tracking(settings)), uri.removeprefix("models:/")
    folder = encoder_folder(settings, uri)
    return Encoder.load(folder), folder.name


def request_of_task(
    settings: Settings,
    task: str,
    data: Path | None = None,
    *,
    twins: bool = False,
    protocols: tuple[str, ...] = (),
    sizes: tuple[int, ...] = (),
    fine_tune: bool = False,
    limit: int | None = None,
    optional: bool = False,
) -> TaskRequest:
    """The task to evaluate, on the given data, else the profile's, else the embedded twin, which is generated if missing.

    An optional task that the encoder does not support is reported as not measured; otherwise it is an error.
    """
    from caco_assets.downstream.evaluate import TaskRequest, data_of

    path = data or (None if twins else data_of(settings, task))
    twin = path is None
    fields = {
        "task": task,
        "data": _twin(settings, task) if twin else path,
        "protocols": protocols or ("paper", "clean"),
        "sizes": sizes or ((64,) if twin else (64, 224)),
        "fine_tune": fine_tune,
        "limit": limit,
        "optional": optional,
    }
    return TaskRequest(TaskData.model_validate(fields), twin)


def _twin(settings: Settings, task: str) -> Path:
    from caco_assets.downstream.tasks import TASKS
    from caco_assets.synthetic.stage import TWINS, build_benchmarks, build_twin

    if task in TWINS:
        return build_twin(settings, task).path
    return build_benchmarks(settings).path / TASKS[task].folder


def _table(rows: list[ScoreRow], twins: list[str]) -> str:
    """One section for each task, protocol, method, size and metric, with published figures where they apply."""
    from caco_assets.downstream.score_rows import write_rows
    from caco_assets.evaluation.scorecard import scorecard, scorecard_text

    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "scores.parquet"
        write_rows(file, rows)
        return scorecard_text(scorecard(file, twins))
