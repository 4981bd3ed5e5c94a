"""python -m fmnist_lit.sweep: sweeps, from the plan of their jobs to the summary of their results."""
