"""Fashion-MNIST and its synthetic stand-in: obtained, checked, decoded once, and served in batches."""

from fmnist_lit.data.datamodule import FashionMNISTDataModule

__all__ = ["FashionMNISTDataModule"]
