"""From a raw log and item texts to sequences, items, users and id maps."""
