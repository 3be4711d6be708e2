"""How images and other latents are made and cut: the autoencoders, patches, and the layers between them and the transformer."""
