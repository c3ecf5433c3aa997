"""The two processes of each candidate: a server, and a client that obeys commands."""
