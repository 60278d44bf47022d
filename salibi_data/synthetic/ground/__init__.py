"""The landscape that the sample's sensors look at."""
