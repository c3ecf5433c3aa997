"""The Django app whose handlers are measured."""
