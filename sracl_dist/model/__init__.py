"""The recommender: sequence encoder, loss terms and their composition; plain torch, without Ray."""
