"""Comparisons that run with one command each; results lie in benchmarks/results/."""
