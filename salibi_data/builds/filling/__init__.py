"""Pixels of scenes on the tiles of a block, and other scenes where the chosen ones lack pixels."""
