"""Training of decoders and of whole networks on a task."""
