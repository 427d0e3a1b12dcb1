"""Lineage of a version: its record, restore, garbage collection and use of data."""
