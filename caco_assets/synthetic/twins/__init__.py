"""Small generated twins of the benchmark data sets, in the layout of their authors."""
