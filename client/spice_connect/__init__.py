"""spice-connect: the person's side. Imports nothing of spicetunnel."""
