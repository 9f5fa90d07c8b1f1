"""Clips of 30 frames, and batches of them from wherever the features live."""
