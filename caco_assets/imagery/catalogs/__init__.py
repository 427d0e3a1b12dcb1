"""Catalogs of scenes: static STAC, STAC APIs, GeoParquet indexes and folders of GeoTIFFs."""
