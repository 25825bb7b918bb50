"""Bringing kata-py onto a node and off it: managers' drop-ins, and versions side by side."""
