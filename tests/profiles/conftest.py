from endpoint_fixtures import own_environment, serve

__all__ = ["own_environment", "serve"]
