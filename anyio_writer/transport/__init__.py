"""How bytes get here: one HTTP exchange over httpx."""
