"""Areas, scene selection, splits, and the plan of a store."""
