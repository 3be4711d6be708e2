"""Training of the transformer and of the autoencoder: loops, optimiser, checkpoints."""
