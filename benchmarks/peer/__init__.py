"""This project's speed beside transfusion-pytorch's: `python -m benchmarks.peer`."""
