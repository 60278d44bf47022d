"""Stores published to buckets, and pulled from them."""
