"""How raw records become documents: checked, decoded within limits, told apart, split, or rejected with a reason."""
