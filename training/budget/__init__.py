"""What a job may cost, what it has cost so far, and what is kept back for its end.

A job is everything from the first stage to the finished, verified exports, however often it is interrupted and started
again on the way. `limit.py`: --max-hours, --budget-usd, --price-per-hour. `ledger.py`: runs/budget.json. `reserve.py`:
the time that evaluation, export and verification are going to need.
"""
