"""Everything on one machine by one command: what runs, in which order, and what is seen to."""
