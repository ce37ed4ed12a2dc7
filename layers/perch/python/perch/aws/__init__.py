"""The only boto3 on the control side: one service a file, speaking in the words of the domain."""
