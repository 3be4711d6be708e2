"""What becomes of damaged input? `python -m benchmarks.faults data`."""
