"""Stage 2: a feature cache in, runs out."""
