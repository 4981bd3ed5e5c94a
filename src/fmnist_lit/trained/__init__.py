"""What a run has trained: found, loaded and used again."""
