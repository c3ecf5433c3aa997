"""The two ends, the only place where transports and dispatch meet."""
