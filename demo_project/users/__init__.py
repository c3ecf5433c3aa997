"""The service that has the users: an ORM model and its handlers."""
