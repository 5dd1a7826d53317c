"""Fitting the recommender: batches, the loop, its checkpoints, and its launch on Ray Train."""
