"""The soft-attention LSTM and the baselines, and the weights that are kept of them."""
