"""Whether a node can run sandboxes: what it is, read from its files, and what follows from that."""
