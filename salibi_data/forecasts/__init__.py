"""Predicts how many samples a variant's regions give, and the time and cost of building them."""
