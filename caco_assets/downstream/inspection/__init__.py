"""One evaluation in detail: per-class figures and example images."""
