"""CloudWatch alarms of the local cloud: the documented evaluation, and the loop that performs it."""
