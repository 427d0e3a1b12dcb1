"""Assets of the embedded Earth: what elsewhere is a provider of imagery and the authors of a benchmark."""

import dagster as dg

from caco_assets.core.stage_versions import stage_version
from caco_assets.resources.dagster.metadata import describe
from caco_assets.resources.profile import Profile
from caco_assets.synthetic.stage import build_benchmarks, build_catalog


@dg.asset(group_name="imagery", code_version=stage_version("catalog"), deps=[dg.AssetKey("locations")], kinds={"stac", "cog"})
def catalog(profile: Profile) -> dg.MaterializeResult:
    """The embedded Earth around the places, written as a provider would: a STAC catalog of COGs, with the truth beside it."""
    return describe(build_catalog(profile.settings()))


@dg.asset(group_name="downstream", code_version=stage_version("benchmarks"), kinds={"jpeg", "geotiff"})
def benchmarks(profile: Profile) -> dg.MaterializeResult:
    """Labelled twins of the benchmark data sets in their published layouts, from places disjoint from pretraining."""
    return describe(build_benchmarks(profile.settings()))
