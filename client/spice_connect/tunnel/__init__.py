"""The connection to the server: ssh or the local gate, its messages, and the clean-up."""
