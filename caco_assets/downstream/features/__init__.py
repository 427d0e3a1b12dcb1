"""Features of frozen encoders and baselines, cached on disk."""
