"""HOW things are done: pieces usable from a notebook. No params.yaml, no fixed paths; imports `model`, never `export`."""
