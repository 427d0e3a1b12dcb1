"""Promotion: policy, rules, latency, the decision and manual overrides."""
