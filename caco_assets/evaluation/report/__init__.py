"""Templates and plots of the report."""
