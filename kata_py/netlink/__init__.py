"""The kernel's network by netlink, with nothing but the standard library; guests have it too."""
