"""Helpers that know nothing of attribution: validation, optional dependencies, random numbers, operating systems."""
