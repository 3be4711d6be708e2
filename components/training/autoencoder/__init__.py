"""Training of the autoencoder, or a given one taken as it is, and how well it reconstructs."""
