"""A learning-rate range test with Lightning's tuner: a suggestion, its picture, and the command to go on with."""
