"""What the Makefile's targets run: the demo, and the private containerd it shares with the tests."""
