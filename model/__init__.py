"""WHAT is learnt: the Transfusion model in pure torch. Imports nothing of ours; torch and the standard library only."""
