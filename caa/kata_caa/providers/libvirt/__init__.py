"""Machines of a libvirt host: `provider` is what the adaptor sees, and what is below it is one thing each."""
