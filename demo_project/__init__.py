"""Two services that talk: users answers messages, gateway asks it for the browser."""
