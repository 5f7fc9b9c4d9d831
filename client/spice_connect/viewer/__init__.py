"""The program that shows the VM."""
