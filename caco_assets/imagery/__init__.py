"""Imagery: finds, reads and archives the pixels of each place."""
