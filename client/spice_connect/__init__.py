"""spice-connect, the client. Imports nothing of spicetunnel."""
