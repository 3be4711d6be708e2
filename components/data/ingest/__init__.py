"""How raw rows become documents: checked, decoded within limits, told apart, split, or set aside with a reason."""
