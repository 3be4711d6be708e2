"""How images and other latents are made and cut: the autoencoders, patches, and the codecs to the transformer."""
