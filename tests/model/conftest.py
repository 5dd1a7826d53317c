from recommender_fixtures import config, one_thread, run, sequences, tables

__all__ = ["config", "one_thread", "run", "sequences", "tables"]
