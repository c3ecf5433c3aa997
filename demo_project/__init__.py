"""Two services that talk: users answers over TCP, gateway asks it for the browser."""
