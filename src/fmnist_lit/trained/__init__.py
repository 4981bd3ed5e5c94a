"""What was trained: found, loaded and used again."""
