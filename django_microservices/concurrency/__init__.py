"""Where threads and loops meet, the only place."""
