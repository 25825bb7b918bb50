"""Azure: pod VMs are virtual machines of one resource group, made and deleted by Azure Resource Manager (ARM)."""
