"""What a run leaves behind, and what it takes to go on with it."""
