"""Planning: which scenes are tried for each location and season."""
