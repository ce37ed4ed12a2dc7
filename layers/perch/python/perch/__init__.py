"""Perch: models behind an API on AWS, moved to live traffic only while the evidence says that it is safe."""
