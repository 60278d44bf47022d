"""Draws the landscape that the sample's sensors look at."""
