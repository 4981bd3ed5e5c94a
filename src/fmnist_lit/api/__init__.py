"""What the package's functions do in Python and in notebooks: a command line, as a guest in somebody's process."""
