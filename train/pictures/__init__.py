"""Attention over frames, as pictures and movies."""
