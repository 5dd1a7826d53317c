"""Ranking the whole catalogue for every user, and what the ranks amount to."""
