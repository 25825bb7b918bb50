"""Deaths of a sandbox's programs at every step that they put on record, and what is left of it afterwards."""
