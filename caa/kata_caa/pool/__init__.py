"""Machines that run and wait for a pod."""
