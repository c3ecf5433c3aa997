"""A process of servers."""
