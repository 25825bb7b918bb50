"""Resources of the host and how each is undone."""
