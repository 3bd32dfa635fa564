"""What all other folders build on; nothing in here is public."""
