"""Labelled images, in whatever files they lie."""
