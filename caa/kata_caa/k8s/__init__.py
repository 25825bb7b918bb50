"""The adaptor's part in a cluster: what it tells the API server, and what it changes in pods."""
