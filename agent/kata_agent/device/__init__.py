"""Devices of the guest: where they are, and what a container that is given them must be told."""
