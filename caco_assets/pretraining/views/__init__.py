"""Views: random crops and augmentations on a CPU or a GPU."""
