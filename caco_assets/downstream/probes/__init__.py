"""Probes on frozen features: linear layers, nearest neighbours, per-pixel models."""
