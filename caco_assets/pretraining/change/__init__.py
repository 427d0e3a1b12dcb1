"""Change of a location: estimate, ground truth, product and gallery."""
