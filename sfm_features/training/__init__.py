"""Networks that learn from unlabelled photographs and evolve their own labels."""
