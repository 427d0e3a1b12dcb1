"""Published weights come in: tensors read without running anything, their layout, the preprocessing they had."""
