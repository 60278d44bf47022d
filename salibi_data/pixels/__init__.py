"""Where pixels lie, and how they are resampled, registered and stored."""
