"""The layout in which SeCo and CACo publish their sets, `000123/<date>/B4.tif`: imported into an archive, exported from one."""
