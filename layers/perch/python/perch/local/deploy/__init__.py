"""Deploying a synthesized CDK app on the local cloud, by our own code or by the real command-line tool."""
