"""The pods' network between a node and the machines of its peer pods: both ends of it.

Every interface of a pod has a tunnel of its own (VXLAN). At the node it ends in the pod's network namespace, where all
that comes in on the one goes out on the other; in the machine it ends as the interface itself, with its name, hardware
address, addresses and routes. The machine carries this package, too: standard library and `kata_py.netlink` alone.
"""
