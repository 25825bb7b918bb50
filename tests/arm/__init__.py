"""An Azure Resource Manager of ours, as far as the Azure provider's calls go.

It is verified: every body it is sent and every answer it gives is held against the models of Azure's own library
(`tests.arm.schema`), so neither the provider nor the fake can make a field up.
"""
