"""Tables and charts that evaluations and sweeps share."""
