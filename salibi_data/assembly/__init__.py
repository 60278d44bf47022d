"""Parts shared by all makers of stores: workspace, workers, shards and files."""
