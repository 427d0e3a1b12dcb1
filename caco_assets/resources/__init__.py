"""Clients of external systems, one file or folder per system."""
