"""The pack: uint8 images for training, as memory-mapped shards."""
