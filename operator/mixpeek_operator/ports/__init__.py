"""What the product needs from the outside world, as protocols. Adapters implement them; nothing here does I/O."""
