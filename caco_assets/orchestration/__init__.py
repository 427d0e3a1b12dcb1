"""Jobs, schedules, sensors and the retraining form, which decide when the chain runs."""
