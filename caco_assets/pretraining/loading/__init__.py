"""Loaders: batches of views on a CPU or a GPU."""
