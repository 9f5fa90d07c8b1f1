"""The backbones: their weights, and how they are run."""
