"""Embeddings of stores, rasters and images."""
