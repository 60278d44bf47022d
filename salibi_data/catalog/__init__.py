"""Providers, variants, and STAC items as scenes."""
