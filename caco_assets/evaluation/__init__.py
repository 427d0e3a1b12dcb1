"""Compares scores with published results and renders the report."""
