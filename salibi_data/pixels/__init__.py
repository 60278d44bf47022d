"""Pixel arithmetic: resampling to tiles, units, registration; nothing here reads or writes files."""
