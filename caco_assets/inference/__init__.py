"""Uses of a trained encoder: embeddings of images."""
