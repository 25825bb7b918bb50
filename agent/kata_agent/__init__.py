"""The agent: PID 1 of the guest, which runs the containers."""
