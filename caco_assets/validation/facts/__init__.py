"""The facts that suites check: plain tables with one row per thing and one column per property that can be wrong."""
