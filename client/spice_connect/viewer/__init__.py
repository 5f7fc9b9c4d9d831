"""The viewer: the program that shows the VM."""
