"""Stacks: each wires constructs in the order in which data flows, and grants last, where both ends are in sight."""
