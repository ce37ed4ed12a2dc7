"""What a model file is, what it expects, and whether anything in it could run code."""
