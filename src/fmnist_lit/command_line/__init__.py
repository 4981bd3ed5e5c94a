"""From a command line to a checked run in a folder of its own."""
