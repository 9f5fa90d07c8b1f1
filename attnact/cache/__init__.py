"""The feature cache, where the two stages meet: its shards and their index, written and read."""
