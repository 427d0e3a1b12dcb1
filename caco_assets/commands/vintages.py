"""Commands for the vintages of a workspace: `caco vintages`, `caco drift`, `caco parent`."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

import click

from caco_assets.commands.shared import profile_option, show
from caco_assets.core.errors import UserError
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.settings import Settings, load_settings

vintage_option = click.option("--vintage", help="YYYY-MM; default the profile's own.")


def _settings(profile: str, vintage: str | None, *, writes: bool = True) -> Settings:
    resolved = load_settings(profile) if vintage is None else load_settings(profile, vintage=vintage)
    if vintage is not None and resolved.vintage != vintage:
        raise UserError(f"--vintage={vintage}: the environment has CACO_VINTAGE={resolved.vintage}; unset it")
    if writes:
        ensure_home(resolved)
    return resolved


@click.command()
@profile_option
@click.option("--check", is_flag=True, help="Fail (status 2) when the last month has not been retrained: for an alarm.")
def vintages(profile: str, check: bool) -> None:
    """List the vintages that have been retrained, and those that were missed."""
    from caco_assets.resources.vintages import finished, finished_month, missed

    resolved = _settings(profile, None, writes=False)
    due = finished_month(datetime.now(UTC))
    done = finished(resolved)
    for entry in done.values():
        verdict = "promoted" if entry.promoted else "not promoted"
        click.echo(f"{entry.vintage}: version {entry.version}, {verdict}, {entry.at}, run {entry.run_id}")
    for vintage in missed(resolved, due):
        click.echo(f"{vintage}: missed; launch the job `retrain` with this vintage to make it")
    if due not in done:
        line = f"{due}: due, not retrained yet"
        if check:
            raise UserError(f"{line}; see docs/operations.md, A month was missed")
        click.echo(line)


@click.command()
@profile_option
@vintage_option
@click.option("--accept", "reason", metavar="REASON", help="Accept this vintage's data although a rule does not hold, and say why.")
def drift(profile: str, vintage: str | None, reason: str | None) -> None:
    """Validation: compare the vintage with the last accepted one."""
    from caco_assets.validation.drift.drift import accept, check_drift

    resolved = _settings(profile, vintage)
    if reason is not None:
        accept(resolved, getpass.getuser(), reason)
        return
    product, _ = check_drift(resolved)
    facts = product.facts
    click.echo(f"{resolved.vintage} against {facts['reference'] or 'nothing (the first accepted vintage)'}")
    for row in facts["rules"]:
        old, new = (f"{row[age]:.4f}" if row[age] is not None else "-" for age in ("old", "new"))
        mark = "holds" if row["holds"] else "FAILS"
        click.echo(
            f"  {mark}  {row['rule']:<10} {row['of']:<8} {old} -> {new}  change {row['change']:+.3f} (at most {row['threshold']:g})"
        )
    if not facts["accepted"]:
        raise UserError(f"{'; '.join(facts['findings'])}; if this is as it should be: caco drift --accept REASON")


@click.command()
@profile_option
@vintage_option
@click.option("--again", is_flag=True, help="Look it up although this vintage has begun already.")
def parent(profile: str, vintage: str | None, again: bool) -> None:
    """Pretraining: look up what training begins with (`pretraining.warm_start`)."""
    from caco_assets.registry.parent import find_parent

    show(find_parent(_settings(profile, vintage), again=again))
