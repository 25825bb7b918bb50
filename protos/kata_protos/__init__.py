"""The wire: protocol buffers of containerd, the agent and ttrpc, with their generated code."""
