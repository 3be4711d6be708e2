"""How many times faster than transfusion-pytorch? `python -m benchmarks.peer`."""
