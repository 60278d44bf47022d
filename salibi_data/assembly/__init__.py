"""What every maker of a store shares."""
