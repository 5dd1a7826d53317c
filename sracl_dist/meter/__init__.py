"""What texts are worth before they are used: small tables about vectors, from training interactions alone."""
