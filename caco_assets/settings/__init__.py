"""One typed, frozen `Settings`: a named profile (YAML), overridden by `CACO_…` variables (`CACO_SAMPLING__PLACES=64`)."""

from caco_assets.settings.load import PROFILES, find_home, load_settings, profile_names
from caco_assets.settings.model import Settings
from caco_assets.settings.paths import Paths
from caco_assets.settings.rooms import (
    S2_BANDS,
    Automation,
    Dense,
    Downstream,
    Drift,
    FineTune,
    Imagery,
    Pretraining,
    Registry,
    Sampling,
    TaskData,
    Validation,
)
from caco_assets.settings.sources import CatalogSource, FolderSource, PublishedSource, Source, StacApiSource, SyntheticSource
from caco_assets.settings.versions import Versions

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
    "PublishedSource",
    "Registry",
    "Sampling",
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
