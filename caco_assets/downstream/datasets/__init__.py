"""Readers of the benchmark data sets as their authors ship them."""
