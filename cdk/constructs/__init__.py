"""Constructs, one idea a file. They take values and other constructs, and read nothing from the environment."""
