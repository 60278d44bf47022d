"""Layers, losses and geometry in plain torch."""
