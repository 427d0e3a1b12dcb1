"""The embedded Earth as a STAC catalog of Sentinel-2 scenes."""
