"""HTTP/1.1 as far as programs of one node need it."""
