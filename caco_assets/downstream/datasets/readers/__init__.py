"""One reader per benchmark data set, from the authors' files."""
