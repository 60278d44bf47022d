"""What a store will hold: areas, scenes, splits, and the plan."""
