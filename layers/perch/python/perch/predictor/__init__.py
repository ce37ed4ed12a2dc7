"""The data plane: load a verified model, decode, infer, encode. No AWS call on the request path."""
