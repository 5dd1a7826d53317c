"""What a language model and a text encoder make of items and users."""
