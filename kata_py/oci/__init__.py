"""The OCI runtime specification, typed as far as a sandboxed runtime touches it."""
