"""The agent: PID 1 of the guest, which runs the containers."""

__version__ = "0.1.0"
