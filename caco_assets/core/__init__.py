"""What every room uses and what knows no room: errors, atomic files, locks, products, progress, object stores."""
