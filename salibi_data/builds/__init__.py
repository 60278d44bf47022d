"""A plan into a store, block by block."""
