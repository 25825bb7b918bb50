"""Images that the guest pulls itself: from a registry to a root file system."""
