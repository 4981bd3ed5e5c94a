"""The processes of a run and of a sweep, and what they tell each other."""
