"""`resilience storage …`: what administrators do to a storage as a whole."""
