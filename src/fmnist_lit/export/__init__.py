"""python -m fmnist_lit.export: a trained classifier for other programs."""
