"""containerd-shim-kata-v2: start, delete, and the daemon that serves the Task API."""
