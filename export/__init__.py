"""HOW a model leaves: what makes a bundle (build), what runs one (run), and the bundle's format that both know."""
