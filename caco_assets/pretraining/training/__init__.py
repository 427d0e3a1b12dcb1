"""The training loop: configuration, checkpoints, schedule, metrics and health checks."""
