"""Training of the transformer: its step, what is kept and shown of a run, and its workers."""
