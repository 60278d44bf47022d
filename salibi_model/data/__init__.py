"""Reads stores, and makes batches of their samples."""
