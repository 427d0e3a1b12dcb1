"""The embedded Earth: a deterministic small planet with known truth."""
