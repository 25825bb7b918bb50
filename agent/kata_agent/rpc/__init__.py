"""The agent's calls: a module for each family, each decoding a request once and calling what does the work."""
