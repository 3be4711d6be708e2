"""HOW a model leaves: graphs, parity, bundle (build side); engines, predictor, pyfunc (run side)."""
