"""Deprecated alias of `caco_assets.inference.embed`, kept for one release."""

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    warnings.warn("caco_assets.registry.embed has moved to caco_assets.inference.embed", DeprecationWarning, stacklevel=2)
    return getattr(import_module("caco_assets.inference.embed"), name)
