"""Nearest items and users by the cosine of their vectors."""
