"""Dagster: the workspace's instance, the workspace lock, the run launcher and asset metadata."""
