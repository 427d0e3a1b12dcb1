"""The archive: shards of chips, their manifest, reading and verification."""
