"""The released Theano code as a peer: its feature files, read and written, and its models, read."""
