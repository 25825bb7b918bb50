"""Containers of the guest: their bundles, processes and streams, with crun as the runtime."""
