"""Ranged reads of Cloud-Optimized GeoTIFFs over HTTP."""
