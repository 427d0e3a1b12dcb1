"""Commands of the room `downstream`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of, show
from caco_assets.progress import to_stderr


@click.command()
@profile_option
def benchmarks(profile: str) -> None:
    """Downstream: make the labelled twins of the benchmark data sets."""
    from caco_assets.synthetic.stage import build_benchmarks

    show(build_benchmarks(settings_of(profile), to_stderr))


@click.command("probe-set")
@profile_option
def probe_set(profile: str) -> None:
    """Downstream: choose the labelled images on which training is probed."""
    from caco_assets.downstream.stage import probe_set as run
    from caco_assets.synthetic.stage import build_benchmarks

    settings = settings_of(profile)
    row = settings.pretraining.probe_task
    if row is not None and settings.downstream.tasks[row].data is None:
        build_benchmarks(settings, to_stderr)
    show(run(settings, to_stderr))


@click.command()
@profile_option
def score(profile: str) -> None:
    """Downstream: judge the encoder and the baselines."""
    from caco_assets.downstream.stage import score as run

    show(run(settings_of(profile), say=to_stderr))
