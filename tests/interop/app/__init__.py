"""The Django service that real Nest peers talk to."""
