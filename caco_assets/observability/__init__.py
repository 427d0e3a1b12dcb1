"""Structured logs and Prometheus metrics, used by every room."""
