"""What reading costs, measured: ``make bench-api``.

The real API against a view written by hand (``by_hand``), which asks the same
questions of the database and answers with the same bytes, in one run, taking turns.
"""
