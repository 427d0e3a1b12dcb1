"""How `champion` and `previous` move: announced, done, recorded; finished by the next one if cut short; people's moves noticed.

The move of the alias `champion` is one request, and the only step that counts. Before it stands the tag `alias_intent`, after it
come `previous`, the tags and the history; whoever finds an intent finishes what the champion says has happened, or drops it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from caco_assets.core.errors import UserError
from caco_assets.registry.aliases.alias_history import Move, Serving, history, remember
from caco_assets.registry.package.mlflow_model import load_version
from caco_assets.registry.registry_lock import Lease, lease
from caco_assets.registry.versions import CHAMPION, GATE, PREVIOUS, aliases, find, registered_tags, registry_lock
from caco_assets.resources.mlflow.client import ServerAwayError, Tracking

logger = logging.getLogger(__name__)

INTENT = "alias_intent"
"""Tag of the registered model: the move that is being made."""
WITHDRAWN = "withdrawn"
"""Tag of a version: when, by whom and why a rollback took it out of service. It is not promoted again."""
BY_HAND = "champion_by_hand"
"""Tag of a version: when it was noticed that a person had moved the champion to it."""
PASSED, FAILED, OVERRIDDEN = "passed", "failed", "overridden"
"""Values of the tag `gate`."""
PROMOTED, ROLLED_BACK, MOVED_BY_HAND, FOUND = "promoted", "rolled back", "by hand", "found"


@dataclass(frozen=True)
class Mover:
    """The right to move a model's aliases, and what serves now."""

    held: Lease
    model: str
    serving: Serving
    noticed: tuple[str, ...] = ()
    """What a person moved by hand since the last time, a line each."""


@contextmanager
def moving(tracking: Tracking, model: str, *, wait: bool = True) -> Iterator[Mover]:
    """The right to move the aliases of a model, in a state that is whole: what was begun is finished, moves by hand are recorded.

    Callers hold `versions.registry_lock`.

    Raises:
        UserError: as `lease`.
    """
    with lease(tracking, model, wait=wait) as held:
        _finish(held, model)
        noticed = tuple(_notice(held, model))
        yield Mover(held, model, Serving.of(aliases(tracking, model)), noticed)


def settle(tracking: Tracking, model: str, *, wait: bool = True) -> Mover:
    """What serves now, after finishing and recording as `moving` does; nothing for a model that does not exist."""
    with registry_lock(tracking, model, wait=wait), moving(tracking, model, wait=wait) as mover:
        return mover


def carry_out(mover: Mover, move: Move) -> None:
    """Make a move; `log_move` follows when the lock has been given back.

    Raises:
        UserError: the lock was held for too long, or the server refuses; the next user of the registry finishes or forgets it.
    """
    held, model = mover.held, mover.model
    held.check()
    held.tracking.client.set_registered_model_tag(model, INTENT, json.dumps(asdict(move)))
    held.check()
    _alias(held, model, CHAMPION, move.after.champion)
    _rest(held, model, move)


def _rest(held: Lease, model: str, move: Move) -> None:
    """All that follows from the champion's move; doing it twice does no harm."""
    client, at = held.tracking.client, f"{move.at} by {move.by}: {move.reason}"
    _alias(held, model, PREVIOUS, move.after.previous)
    if move.withdraw is not None:
        client.set_model_version_tag(model, move.withdraw, WITHDRAWN, at)
    if move.restore is not None and WITHDRAWN in client.get_model_version(model, move.restore).tags:
        client.delete_model_version_tag(model, move.restore, WITHDRAWN)
    remember(held, model, move)
    client.delete_registered_model_tag(model, INTENT)


def _finish(held: Lease, model: str) -> None:
    text = registered_tags(held.tracking, model).get(INTENT)
    if text is None:
        return
    move, champion = Move.of(json.loads(text)), aliases(held.tracking, model).get(CHAMPION)
    if champion == move.after.champion:
        logger.info(f"{model}: {move.what} version {champion} was cut short after the champion had moved; the rest is done now")
        _rest(held, model, move)
    else:
        logger.info(f"{model}: {move.what} version {move.after.champion} was cut short before the champion moved; decide again")
        held.tracking.client.delete_registered_model_tag(model, INTENT)


def _notice(held: Lease, model: str) -> Iterator[str]:
    """Record what a person moved; it is respected, whatever the gate says."""
    tracking, known = held.tracking, history(held.tracking, model)
    now = Serving.of(aliases(tracking, model))
    before = known[-1].after if known else Serving(None, None)
    if now == before:
        return
    doubt = None if now.champion in (None, before.champion) else unfit(tracking, model, now.champion)
    what = FOUND if not known and doubt is None else MOVED_BY_HAND
    move = Move.now(what, before, now, "unknown", "the aliases are not where they were put")
    line = f"{model}: champion {before.champion or 'none'} → {now.champion or 'none'}, previous {before.previous or 'none'} → "
    line += f"{now.previous or 'none'}: moved by hand, and respected"
    if what == MOVED_BY_HAND and now.champion not in (None, before.champion):
        tracking.client.set_model_version_tag(model, now.champion, BY_HAND, move.at)
    remember(held, model, move)
    if what == FOUND:
        return
    if doubt is not None:
        line = f"WARNING: {line}. But version {now.champion} {doubt}; `caco rollback` or a promotion takes it out of service"
    logger.info(line)
    yield line


def unfit(tracking: Tracking, model: str, version: str) -> str | None:
    """Why a version should not serve: its gate, a rollback, or its files; None: it may."""
    found = find(tracking, f"models:/{model}/{version}")
    if WITHDRAWN in found.tags:
        return f"was withdrawn ({found.tags[WITHDRAWN]})"
    if (gate := found.tags.get(GATE)) not in (PASSED, OVERRIDDEN):
        return "has failed the promotion policy" if gate == FAILED else "was never judged by the promotion policy"
    try:
        load_version(tracking, found)
    except ServerAwayError:
        raise
    except UserError as error:
        return f"does not load ({error})"
    return None


def _alias(held: Lease, model: str, alias: str, version: str | None) -> None:
    if version is None:
        held.tracking.client.delete_registered_model_alias(model, alias)
    else:
        held.tracking.client.set_registered_model_alias(model, alias, version)


def log_move(tracking: Tracking, model: str, move: Move) -> None:
    """The move as a file of the runs that made the versions it is about; it has happened, so a failure is only said."""
    name = f"decision/{move.at.replace(':', '')}-{move.what.replace(' ', '-')}.json"
    for version in {move.after.champion, move.before.champion} - {None}:
        try:
            run_id = find(tracking, f"models:/{model}/{version}").run_id
            if run_id:
                tracking.client.log_text(run_id, json.dumps(asdict(move), indent=1) + "\n", name)
        except UserError as error:
            logger.info(f"WARNING: {model}: the move is done, but the run of version {version} does not say so ({error})")
