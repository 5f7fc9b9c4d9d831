"""An ssh by asyncssh, for machines without OpenSSH: `python -m spice_connect.tunnel.builtin`."""
