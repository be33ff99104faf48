"""How fast the worker is, against the limit of the machine and against what else does the job (`make bench`).

Owns loads, contenders, interleaved rounds, measuring, checking and reporting. Promises that no figure is reported for a
run whose rows, contents and confirmations were not all found afterwards. It stands beside tests, not inside: it is run
by people, takes minutes, and compares with packages that the product never needs.
"""
