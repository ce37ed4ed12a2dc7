"""Frozen values and pure functions. Standard library only; time and randomness come in as arguments."""
