"""What became of a sandbox, and why: evidence on this node, the causes known of, and the verdict."""
