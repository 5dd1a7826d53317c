"""Tables of results: every configuration trained with every seed on shared tables, and what came out."""
