"""The commands, by what they work on; each imports its stage when it runs."""
