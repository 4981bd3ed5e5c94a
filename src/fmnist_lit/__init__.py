"""Fashion-MNIST with Lightning and Hydra: the PyTorch optimisation tutorial as real software."""

__version__ = "0.1.0"
