"""The `caco` command line: each command calls one room; a `UserError` is printed on one line with exit status 2."""

from __future__ import annotations

import sys
from typing import Any

import click

from caco_assets import __version__
from caco_assets.commands.archive import archive
from caco_assets.commands.doctor import doctor
from caco_assets.commands.downstream import benchmarks, probe_set, score
from caco_assets.commands.encoder import encoder
from caco_assets.commands.evaluate import evaluate
from caco_assets.commands.evaluation import report
from caco_assets.commands.footprints import footprints
from caco_assets.commands.imagery import catalog, ingest, plan
from caco_assets.commands.lineage import gc, lineage, restore
from caco_assets.commands.metrics import metrics
from caco_assets.commands.pretraining import change_maps, pack, pretrain
from caco_assets.commands.registry import embed, export, promote, register, release, rollback
from caco_assets.commands.sampling import sample
from caco_assets.commands.server import server
from caco_assets.commands.validation import validate
from caco_assets.commands.vintages import drift, parent, vintages
from caco_assets.commands.whole_chain import demo, settings, up
from caco_assets.core.errors import UserError, storage_error
from caco_assets.observability.logs import log_to_stderr


class _Group(click.Group):
    """Prints a `UserError` on one line and exits with 2; exits with 130 on Ctrl-C and 143 when SIGTERM stopped a training."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"caco: {error}", err=True)
            sys.exit(2)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except Exception as error:
            if (plain := storage_error(error)) is None:
                raise
            click.echo(f"caco: {plain}", err=True)
            sys.exit(2)
        except KeyboardInterrupt as stopped:
            click.echo("caco: interrupted; what is finished is kept, run the same command again to resume", err=True)
            sys.exit(getattr(stopped, "status", 130))


@click.group(cls=_Group)
@click.version_option(__version__)
def main() -> None:
    """Train, evaluate and serve satellite-image encoders."""
    log_to_stderr()


WHOLE_CHAIN = (settings, demo, up, doctor, vintages, server)
ROOMS = (
    *(sample, footprints, catalog, plan, ingest, archive, validate, drift),
    *(pack, benchmarks, probe_set, parent, pretrain, change_maps, encoder, score, evaluate, report),
    *(register, promote, release, rollback, embed, export),
    *(lineage, restore, gc),
    metrics,
)
for command in (*WHOLE_CHAIN, *ROOMS):
    main.add_command(command)


if __name__ == "__main__":
    main()
