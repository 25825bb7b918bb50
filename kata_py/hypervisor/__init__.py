"""What a hypervisor driver offers, and the values it is given."""
