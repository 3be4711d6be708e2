"""Damaged input and what becomes of it: `python -m benchmarks.faults data`."""
