"""python -m fmnist_lit.evaluate: accuracy, mistakes and calibration of trained classifiers."""
