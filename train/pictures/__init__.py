"""Pictures and movies: attention over frames, and where a run is wrong."""
