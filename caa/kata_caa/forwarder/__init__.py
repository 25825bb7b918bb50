"""What runs in a peer pod's VM beside the agent: it makes the VM the pod's, and passes the adaptor's calls on."""
