"""Reading of scenes: from files anywhere to pixels in physical units, with their position."""
