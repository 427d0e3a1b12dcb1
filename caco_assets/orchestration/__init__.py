"""When the chain runs: jobs, schedules, sensors and the form of a retraining."""
