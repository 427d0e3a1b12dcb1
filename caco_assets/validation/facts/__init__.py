"""The checkable facts of each product: plain tables, one row per thing, one column per thing that can be wrong with it."""
