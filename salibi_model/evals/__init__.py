"""Evaluates the frozen features of a model."""
