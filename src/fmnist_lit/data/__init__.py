"""The data: obtained, checked, decoded once, served as whole batches."""

from fmnist_lit.data.datamodule import FashionMNISTDataModule

__all__ = ["FashionMNISTDataModule"]
