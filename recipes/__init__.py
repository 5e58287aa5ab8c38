"""What can be run: the recipe schema, a card per method, and the built-in recipes. Knows neither engine nor tui."""
