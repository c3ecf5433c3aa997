"""The service that browsers talk to: views that call the users service."""
