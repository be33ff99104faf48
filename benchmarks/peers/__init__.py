"""The job as others would do it: one program a peer, written as its documents say. Started by contenders/peers.py.

Every one validates with this project's contracts, inserts with ON CONFLICT DO NOTHING, makes the parents that a row
names, folds an entity's event into its row by this project's own merge, publishes a confirmation event with publisher
confirms, and acknowledges at the end. A transaction a message, unless its documents offer batches.
"""
