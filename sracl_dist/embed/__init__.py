"""From texts to unit vectors: what is encoded, the encoder, and the vectors of a run."""
