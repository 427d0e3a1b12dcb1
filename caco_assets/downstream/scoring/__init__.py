"""Scores encoders on tasks and checks the results."""
