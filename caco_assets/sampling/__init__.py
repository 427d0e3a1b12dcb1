"""Sampling: draws the places on the Earth."""
