"""Aliases of the registry: champion, challenger, their moves and notifications."""
