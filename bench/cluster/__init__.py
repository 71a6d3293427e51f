"""Runs a plan as jobs of a cluster, or one on every GPU of this machine."""
