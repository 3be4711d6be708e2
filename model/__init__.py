"""WHAT is learnt: the Transfusion model in pure torch. Imports torch and the standard library, and nothing else of ours."""
