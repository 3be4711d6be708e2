"""Damaged input and what becomes of it: `python -m tests.faults data`."""
