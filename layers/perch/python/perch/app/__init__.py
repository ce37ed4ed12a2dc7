"""Use cases, one verb a file: what Perch does, told in terms of the domain and of AWS in our words."""
