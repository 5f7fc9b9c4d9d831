"""The VMs a person may use: asked for, listed, picked, remembered."""
