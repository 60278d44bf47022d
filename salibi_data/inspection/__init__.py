"""Describes a store, draws its samples, and checks it against what it states about itself."""
