"""Order: what runs when."""
