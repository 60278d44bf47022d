"""Measurements while a model trains."""
