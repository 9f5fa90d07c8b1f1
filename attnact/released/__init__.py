"""The released Theano code as a peer: its feature files and its models, read and written."""
