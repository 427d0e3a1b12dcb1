"""Scores encoders on downstream tasks."""
