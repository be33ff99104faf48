"""A check under fire: publish, break things at random, and account for every message that the broker confirmed."""
