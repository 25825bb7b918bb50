"""The agent's policy: which requests it answers, decided by rules in Rego that the guest or its owner brings.

The evaluator is regorus, which upstream has too, loaded with the first policy: a guest without one pays nothing.
Source: kata-containers' `src/agent/policy/src/policy.rs`, `src/agent/src/policy.rs`.
"""
