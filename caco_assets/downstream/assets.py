"""Assets of the room `downstream`."""

import dagster as dg

from caco_assets.downstream.stage import probe_set as make_probe_set
from caco_assets.downstream.stage import score
from caco_assets.pretraining.assets import encoder
from caco_assets.recipes import recipe
from caco_assets.resources.describe import describe, table
from caco_assets.resources.dvc import DataVersions, data_versions
from caco_assets.resources.profile import Profile
from caco_assets.resources.tracking import live_run


@dg.asset(group_name="downstream", code_version=recipe("probe_set"), deps=[dg.AssetKey("benchmarks")], kinds={"numpy"})
def probe_set(context: dg.AssetExecutionContext, profile: Profile, versions: DataVersions) -> dg.MaterializeResult:
    """A few labelled images, of training and validation parts alone, on which the encoder is probed while it trains."""
    settings = profile.settings()
    product = make_probe_set(settings, context.log.info)
    versions.commit(settings, "probe_set")
    return describe(product)


@dg.asset(group_name="downstream", code_version=recipe("scores"), deps=[encoder, dg.AssetKey("benchmarks")], pool="gpu")
def scores(context: dg.AssetExecutionContext, profile: Profile) -> dg.MaterializeResult:
    """The encoder and the baselines on every task of the profile: probe, kNN, both protocols, with intervals."""
    from caco_assets.downstream.rows import read_rows

    settings = profile.settings()
    product = score(settings, say=context.log.info)
    rows = read_rows(product.path)
    if not product.reused:
        with live_run(settings, "downstream", data_versions(settings), context.run_id, context.log.info) as live:
            ours = [row for row in rows if row.role == "candidate"]
            names = {f"{row.row}.{row.protocol}.{row.method}.{row.size}": row.value for row in ours}
            live.log(0, {name: value for name, value in names.items() if value is not None})
            live.begin().file(product.path)
    shown = [
        {
            "row": row.row,
            "encoder": row.encoder,
            "protocol": row.protocol,
            "method": row.method,
            "value": "" if row.status != "measured" else f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]",
            "n": row.n,
            "status": row.status,
            "note": row.note,
        }
        for row in rows
    ]
    return describe(product, scores=table(shown))
