"""Ingest: fills the shards of the archive, resumes after a kill and reuses chips of earlier vintages."""
