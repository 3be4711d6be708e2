"""How documents become packed shards of token ids and latents, the same bytes whatever the number of workers."""
