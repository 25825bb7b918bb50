"""`kata-ctl`: what people and scripts on the node ask of running sandboxes."""
