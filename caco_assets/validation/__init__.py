"""Validation: checks the data products, and vintages for drift."""
