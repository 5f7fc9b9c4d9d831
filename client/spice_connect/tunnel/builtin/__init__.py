"""An ssh of our own, by asyncssh, for machines without OpenSSH: `-m spice_connect.tunnel.builtin`.

A program like ssh(1), and to the rest of the client just another one: it takes the command lines
that spice_connect/tunnel/ssh.py builds, and nothing else; it says why it failed in OpenSSH's words.
"""
