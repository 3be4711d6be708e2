"""How far generated pictures are from held-out ones, in features of a network that was trained on the corpus itself."""
