"""Where on the Earth to look."""
