"""Captions of held-out pictures: generated, and compared with those of the corpus."""
