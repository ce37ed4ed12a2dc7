"""The fixtures that Perch gives to projects which deploy with it, for its own tests."""

pytest_plugins = ["perch.local.fixtures"]
