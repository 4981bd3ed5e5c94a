"""Hydra finds sweepers and launchers in this namespace only; all else about sweeps is in fmnist_lit.sweep."""
