"""The cloud-api-adaptor: virtual machines of a cloud as the machines of pods on this node."""
