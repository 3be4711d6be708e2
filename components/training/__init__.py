"""One trainer for the transformer and the autoencoder: loop, checkpoints, the folder of a run; a folder each for their own."""
