"""The pod's network: what is in its namespace, how a guest is connected to it, and what the agent is told of it."""
