"""From a pattern to the user's function."""
