"""Stage 1: videos in, a feature cache out."""
