"""Architectures, and the configuration that describes them."""
