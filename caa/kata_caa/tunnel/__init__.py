"""The tunnel between a pod's network namespace on a node and the one in its pod VM: both of its ends."""
