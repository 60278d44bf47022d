"""The command salibi-model."""
