"""What travels, without I/O."""
