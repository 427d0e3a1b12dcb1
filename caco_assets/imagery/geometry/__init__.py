"""Geometry: chip grids, footprints and the MGRS cells of Sentinel-2."""
