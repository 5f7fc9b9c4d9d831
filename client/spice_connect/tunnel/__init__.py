"""One way to the server: ssh or the local gate, what it says, and what must be swept up after it."""
