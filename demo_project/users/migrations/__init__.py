"""The database schema of the users."""
