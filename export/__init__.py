"""HOW a model leaves: what makes a bundle (builder), what runs one (run), and the bundle's format that both know."""
