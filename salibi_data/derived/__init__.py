"""Stores made of other stores: subsets and merges."""
