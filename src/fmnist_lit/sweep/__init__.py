"""Everything that knows about more than one run."""
