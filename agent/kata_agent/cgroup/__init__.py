"""Control groups of either generation: where a container's is, its end, its statistics."""
