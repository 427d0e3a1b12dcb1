"""Schedules, sensors and automation conditions."""
