"""Scenes: STAC items, their periods, radiometry and clear-sky masks."""
