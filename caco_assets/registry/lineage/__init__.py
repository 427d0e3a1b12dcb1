"""Lineage of a version: its record, restore, garbage collection and uses of data."""
