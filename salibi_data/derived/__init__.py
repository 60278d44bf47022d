"""Stores made from other stores: selections, subsets and merges."""
