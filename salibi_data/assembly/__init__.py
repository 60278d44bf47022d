"""What every maker of a store shares: its workspace, its workers, its shards and files."""
