"""The authors' released PMTiles archives, into a store and back."""
