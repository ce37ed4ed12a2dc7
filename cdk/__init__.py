"""The infrastructure: what `perch.toml` declares, as CloudFormation.

`settings` reads and checks the declaration, `layers` and `package_layer` build what functions need beside their code
(`bytecode` compiles it), each module in `constructs` models one idea, each in `stacks` deploys and grants, and
`service` puts the stacks together.
"""
