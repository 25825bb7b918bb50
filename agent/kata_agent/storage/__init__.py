"""What the host asks the agent to mount, before a sandbox or a container uses it."""
