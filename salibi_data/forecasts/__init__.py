"""What a variant's regions hold, and what building them costs."""
