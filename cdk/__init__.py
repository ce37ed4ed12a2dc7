"""The infrastructure: what `perch.toml` declares, as CloudFormation.

`settings` reads and checks the declaration, `layers` builds what functions need beside their code, each module in
`constructs` models one idea, each in `stacks` deploys and grants, and `service` puts the stacks together.
"""
