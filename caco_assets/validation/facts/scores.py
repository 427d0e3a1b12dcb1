"""Facts of `scores.parquet`: whether each score is valid, and whether the candidate is better than chance."""

from __future__ import annotations

from caco_assets.settings import Settings
from caco_assets.validation.facts.table import Frame, Table, missing_fields, numbers, read_parquet

KEYS = ("row", "task", "encoder", "role", "protocol", "method", "size", "seed", "metric")
ALWAYS = ("row", "task", "encoder", "role", "protocol", "status")
MEASURED = (*KEYS[5:], "value", "ci_low", "ci_high", "n", "data_version", "model_uri")
RANDOM = "random"
"""Name of the untrained encoder among the baselines."""


def scores(settings: Settings) -> list[Table]:
    """`scores`: one row per number. `scores.margins`: per setting, the candidate's lead over the random encoder.

    Raises:
        UserError: the product is absent or unreadable.
    """
    columns = dict.fromkeys((*ALWAYS, *MEASURED, "note"))
    frame = read_parquet(settings.paths.scores, tuple(columns))
    numbers(frame, ("size", "seed", "value", "ci_low", "ci_high", "n"))
    return [Table("scores", _numbers(frame)), Table("scores.margins", _margins(frame))]


def _numbers(frame: Frame) -> Frame:
    table = frame.copy()
    measured = (frame["status"] == "measured").to_numpy()
    # a baseline has no registered model behind it
    always, fields = missing_fields(frame, ALWAYS), missing_fields(frame, [name for name in MEASURED if name != "model_uri"])
    table["missing_fields"] = [
        ",".join(filter(None, (key, field if is_measured else "")))
        for key, field, is_measured in zip(always, fields, measured, strict=True)
    ]
    names = frame[["row", "encoder", "protocol", "method", "size", "seed", "metric"]].astype(object)
    table["id"] = ["/".join(_short(value) for value in row if value == value) for row in names.to_numpy()]  # noqa: PLR0124
    for name in ("row", "task", "encoder", "role", "protocol", "status"):
        table[name] = frame[name].fillna("")
    table["repeated"] = (frame.duplicated(list(KEYS), keep=False) & measured).to_numpy()
    table["below_ci"] = (frame["ci_low"] - frame["value"]).clip(lower=0).fillna(0)
    table["above_ci"] = (frame["value"] - frame["ci_high"]).clip(lower=0).fillna(0)
    table["n"] = frame["n"].where(measured)
    table["reason_missing"] = (~measured) & (frame["note"].fillna("") == "").to_numpy()
    return table


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _margins(frame: Frame) -> Frame:
    """Means over seeds; one row per setting in which both a candidate and the random encoder were measured."""
    import pandas as pd

    setting = ["row", "protocol", "method", "size", "metric"]
    measured = frame[frame["status"] == "measured"]
    candidates = measured[measured["role"] == "candidate"].groupby([*setting, "encoder"])["value"].mean().reset_index()
    chance = measured[measured["encoder"] == RANDOM].groupby(setting)["value"].mean().rename("random")
    joined = candidates.merge(chance, on=setting, how="inner")
    names = joined[["row", "encoder", "protocol", "method", "size", "metric"]].astype(object).to_numpy()
    return pd.DataFrame(
        {
            "id": ["/".join(_short(value) for value in name) for name in names],
            "candidate": joined["value"].to_numpy(),
            "random": joined["random"].to_numpy(),
            "margin": (joined["value"] - joined["random"]).to_numpy(),
        }
    )
