"""Corpora in, checked and packed latents out: documents, readers, tokenizer, expectations, shards, packing, loader."""
