from recommender_fixtures import run, sequences, tables

__all__ = ["run", "sequences", "tables"]
