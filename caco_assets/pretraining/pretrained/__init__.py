"""Imports published weights: reads tensors without running code, detects their layout and restores their preprocessing."""
