"""The HTTP service: one index, asked over the loopback interface."""
