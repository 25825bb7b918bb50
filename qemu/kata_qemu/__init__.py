"""QEMU as a hypervisor: command lines, QMP, virtiofsd."""
