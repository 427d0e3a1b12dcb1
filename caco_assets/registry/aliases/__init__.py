"""The aliases champion, challenger and previous: their moves, history and notifications."""
