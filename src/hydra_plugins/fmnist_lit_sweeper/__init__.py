"""Hydra finds sweepers in this namespace only; all else about sweeps is in fmnist_lit.sweep."""
