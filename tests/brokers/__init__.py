"""Real servers for the tests, private ones where the environment names none."""
