"""What a configuration may say, checked before anything heavy is imported."""


class ConfigError(ValueError):
    """A configuration that cannot run; the message names the key, the value and what is allowed."""
