"""Fields of STAC items, read with care."""
