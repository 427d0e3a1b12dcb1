"""Shared foundations that import no room: errors, atomic files, locks, products, progress, object stores."""
