"""Data sets that exist already, into stores."""
