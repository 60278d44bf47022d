"""Reads labelled images from the file layouts of public data sets."""
