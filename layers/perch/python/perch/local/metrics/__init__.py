"""CloudWatch metrics of the local cloud: the store, metric math, and the API on top."""
