"""Per-user SSH tunnels to SPICE consoles: one VM map, enforced by the server alone."""

__version__ = "0.1.0.dev0"
