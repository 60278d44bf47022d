"""Stores as batches of samples."""
