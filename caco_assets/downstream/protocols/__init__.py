"""The protocols `paper` and `clean` for each kind of task."""
