"""What a person sees and is asked, on a terminal and on a desktop."""
