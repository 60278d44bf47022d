"""Destinations of the metrics of a run."""
