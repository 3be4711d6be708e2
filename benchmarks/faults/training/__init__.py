"""Faults of training, injected into the real one: `python -m benchmarks.faults training`."""
