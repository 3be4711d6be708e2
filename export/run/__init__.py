"""Running a bundle: requests, engines, the predictor, batch inference and serving; of ours only model and core."""
