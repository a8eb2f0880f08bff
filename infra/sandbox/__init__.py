"""A small simulated world: farms, seasons, clouds, and the archive that a satellite would have made of them."""
