"""Examples that run: models to upload, and the code that trains them."""
