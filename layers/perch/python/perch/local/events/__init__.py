"""EventBridge of the local cloud: patterns, the bus that matches and delivers, schedules, and targets."""
