"""Runs functions as Lambda does: worker processes with AWS's own runtime client behind a local Runtime API."""

from perch.local.compute.dataplane import DataPlane

__all__ = ["DataPlane"]
