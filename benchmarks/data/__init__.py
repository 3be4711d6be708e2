"""How fast, how full and how sure is the data path? `python -m benchmarks.data`."""
