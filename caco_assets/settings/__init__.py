"""One typed, frozen `Settings`: a named profile (YAML), overridden by `CACO_…` variables (`CACO_SAMPLING__PLACES=64`)."""

from caco_assets.settings.automation import Automation
from caco_assets.settings.bands import S2_BANDS
from caco_assets.settings.data_versions import Versions
from caco_assets.settings.downstream import Dense, Downstream, FineTune, TaskData
from caco_assets.settings.imagery import Imagery
from caco_assets.settings.imagery_limits import ServerLimits
from caco_assets.settings.imagery_sources import (
    CatalogSource,
    FolderSource,
    SecoLayoutSource,
    Source,
    StacApiSource,
    SyntheticSource,
)
from caco_assets.settings.load import PROFILES, find_home, load_settings, profile_names
from caco_assets.settings.model import Settings
from caco_assets.settings.paths import Paths
from caco_assets.settings.pretraining import Pretraining
from caco_assets.settings.registry import Registry
from caco_assets.settings.sampling import Sampling
from caco_assets.settings.validation import Drift, Validation

__all__ = [
    "PROFILES",
    "S2_BANDS",
    "Automation",
    "CatalogSource",
    "Dense",
    "Downstream",
    "Drift",
    "FineTune",
    "FolderSource",
    "Imagery",
    "Paths",
    "Pretraining",
    "Registry",
    "Sampling",
    "SecoLayoutSource",
    "ServerLimits",
    "Settings",
    "Source",
    "StacApiSource",
    "SyntheticSource",
    "TaskData",
    "Validation",
    "Versions",
    "find_home",
    "load_settings",
    "profile_names",
]
