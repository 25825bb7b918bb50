"""What of the host's file systems a container gets to see, and what the agent is told of it."""
