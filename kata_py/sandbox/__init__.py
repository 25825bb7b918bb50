"""A pod's life: plan, virtual machine, containers, processes, record, events."""
