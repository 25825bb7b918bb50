"""The node side of Kata Containers: shim, sandbox, and the libraries under them."""
