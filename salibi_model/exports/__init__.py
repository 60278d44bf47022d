"""Exports models for other users and frameworks."""
