"""Drift: a vintage compared with the last accepted one."""
