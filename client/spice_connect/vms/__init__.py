"""The VMs that the user may use: asked for, listed, picked."""
