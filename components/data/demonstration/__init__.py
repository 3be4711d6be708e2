"""What the demonstration is made of: scenes of handwritten digits, the prose of the Python reference, and requests."""
