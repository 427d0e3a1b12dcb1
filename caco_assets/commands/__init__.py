"""The commands of `caco`, one file per room; `caco_assets/cli.py` registers them."""
