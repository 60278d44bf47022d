"""The command salibi-data."""
