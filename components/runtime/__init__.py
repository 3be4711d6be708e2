"""The world around a run: files and manifests, MLflow tracking, the Ray cluster."""
