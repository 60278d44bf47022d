"""From a scene's files to pixels in physical units."""
