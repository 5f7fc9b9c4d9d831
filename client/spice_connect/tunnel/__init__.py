"""One way to the server: ssh or the local gate, what it says, and what is swept up after it."""
