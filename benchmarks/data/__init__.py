"""Speed, fill and safety of the data path: `python -m benchmarks.data`."""
