"""What an operator does with dead letters: find, read, edit, replay, discard, move. The command line calls it.

The worker itself writes and resolves them (store/letters.py); nothing here decides that a message was stored.
"""
