"""Commands of the room `downstream`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of, show


@click.command()
@profile_option
def benchmarks(profile: str) -> None:
    """Downstream: make the labelled twins of the benchmark data sets."""
    from caco_assets.synthetic.stage import build_benchmarks

    show(build_benchmarks(settings_of(profile)))


@click.command("probe-set")
@profile_option
def probe_set(profile: str) -> None:
    """Downstream: choose the labelled images on which training is probed."""
    from caco_assets.downstream.stage import probe_set as run
    from caco_assets.synthetic.stage import build_benchmarks

    settings = settings_of(profile)
    row = settings.pretraining.probe_task
    if row is not None and settings.downstream.tasks[row].data is None:
        build_benchmarks(settings)
    show(run(settings))


@click.command()
@profile_option
@click.option("--encoder", help="Judge this one alone: a name of `caco encoder import`, or the folder of an encoder.")
def score(profile: str, encoder: str | None) -> None:
    """Downstream: evaluate the encoder and the baselines."""
    from caco_assets.downstream.stage import score as run
    from caco_assets.downstream.stage import score_imported

    settings = settings_of(profile)
    if encoder is None:
        show(run(settings))
        return
    for row in score_imported(settings, encoder):
        value = (
            f"{row.value:.1%} [{row.ci_low:.1%}, {row.ci_high:.1%}]" if row.status == "measured" else f"not measured: {row.note}"
        )
        click.echo(f"{row.row} {row.protocol} {row.method} at {row.size} px: {value}")
