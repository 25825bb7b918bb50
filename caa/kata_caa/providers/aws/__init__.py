"""Pod VMs on Amazon EC2. Source of the behaviour: cloud-api-adaptor `src/cloud-providers/aws`."""
