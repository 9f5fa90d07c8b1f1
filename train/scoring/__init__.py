"""Clips to videos to the data set's metric; where models look; how sure a number is."""
