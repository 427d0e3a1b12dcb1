"""Commands of the room `validation`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of
from caco_assets.core.errors import UserError


@click.command()
@profile_option
@click.argument("product", type=click.Choice(["locations", "scenes", "archive", "pack", "scores"]))
def validate(profile: str, product: str) -> None:
    """Validation: run the expectations of a product."""
    from caco_assets.validation.stage import validate as run

    result = run(settings_of(profile), product)
    for line in [*result.blocking_failed, *result.warnings]:
        click.echo(line, err=True)
    if result.blocking_failed:
        raise UserError(f"{product}: {len(result.blocking_failed)} blocking expectations failed; see {result.docs}")
    click.echo(f"{product}: {result.evaluated} expectations evaluated, {len(result.warnings)} warnings")
