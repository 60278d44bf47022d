"""Meaning of a file's numbers: which are observations, and in which physical units."""
