"""What each layer offers, and which layer takes which method."""
