"""Pretrains encoders: training pack, objectives, training loop and encoder files."""
