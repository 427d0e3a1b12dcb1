"""Facts of the quarantine: the share of wanted chips lost to each reason."""

from __future__ import annotations

from caco_assets.settings import Settings
from caco_assets.validation.facts.table import Frame, numbers, read_parquet

COLUMNS = ("location_id", "shard", "period", "season", "item_id", "reason", "detail", "clear_fraction")
TOTAL, UNEXPLAINED, NO_OTHER_SCENE = "all", "unexplained", "no_other_scene"
"""`no_other_scene`: the place has enough dates, and every scene for this one was already used by another date."""


def read_quarantine(settings: Settings) -> Frame:
    """`quarantine.parquet`; a row about a whole place has no period and season.

    Raises:
        UserError: it is absent or unreadable.
    """
    frame = read_parquet(settings.paths.quarantine, COLUMNS)
    numbers(frame, ("shard", "period", "season", "clear_fraction"))
    return frame


def quarantine_summary(chips: Frame, places: Frame, refused: Frame, settings: Settings) -> Frame:
    """Why wanted chips are absent.

    A wanted chip is a date of a place (place × period × season). One that the archive lacks is counted under the reason of the
    last row about it, else of the row about its place, else, where the place is served, as `no_other_scene`; what remains is
    `unexplained`. A refused candidate whose date another scene
    filled counts as `tried` only.

    Returns:
        One row per reason and one for `all`: `id` (the reason), `tried` (rows), `lost` (wanted chips), `share` (of wanted chips),
        `unexplained` (lost without a reason), `detail_missing` (rows without a line of detail), `reason_missing` (rows without a
        reason).
    """
    import pandas as pd

    wanted = [
        (place, period, season)
        for place in places["location_id"]
        for period in (0, 1)
        for season in range(settings.imagery.seasons)
    ]
    held = set(zip(chips["location_id"], chips["period"], chips["season"], strict=True))
    reasons = refused["reason"].fillna("")
    of_slot = dict(zip(zip(refused["location_id"], refused["period"], refused["season"], strict=True), reasons, strict=True))
    whole = ~refused["period"].isin((0, 1))
    of_place = dict(zip(refused["location_id"][whole], reasons[whole], strict=True))
    dates = [chips[chips["period"] == period].groupby("location_id")["season"].nunique() for period in (0, 1)]
    least = settings.imagery.min_seasons
    served = {place for place in places["location_id"] if min(period.get(place, 0) for period in dates) >= least}
    lost: dict[str, int] = {}
    for slot in wanted:
        if slot not in held:
            otherwise = NO_OTHER_SCENE if slot[0] in served else UNEXPLAINED
            reason = of_slot.get(slot) or of_place.get(slot[0]) or otherwise
            lost[reason] = lost.get(reason, 0) + 1
    tried = reasons.value_counts().to_dict()
    no_detail = reasons[refused["detail"].fillna("") == ""].value_counts().to_dict()
    rows = [
        {
            "id": name or "(no reason)",
            "tried": tried.get(name, 0),
            "lost": lost.get(name, 0),
            "share": lost.get(name, 0) / max(1, len(wanted)),
            "unexplained": lost.get(name, 0) if name == UNEXPLAINED else 0,
            "detail_missing": no_detail.get(name, 0),
            "reason_missing": tried.get(name, 0) if name == "" else 0,
        }
        for name in sorted({*lost, *tried, UNEXPLAINED})
    ]
    table = pd.DataFrame(rows)
    total = {"id": TOTAL, **table.drop(columns="id").sum().to_dict()}
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True)
