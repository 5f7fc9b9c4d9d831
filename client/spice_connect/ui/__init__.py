"""Messages and questions, on a terminal and on a desktop."""
