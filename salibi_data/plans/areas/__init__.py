"""Areas of candidate tiles: what files hold them, and the cells and tiles that they hold."""
