"""`kata-monitor`: the figures of all sandboxes on this node, for Prometheus."""
