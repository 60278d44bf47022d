"""Providers of scenes, dataset variants, and the search for scenes."""
