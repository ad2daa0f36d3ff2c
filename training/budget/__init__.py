"""The budget of a job: its limit, the time and money that it has used, and the reserve for its last stages.

A job is everything from the first stage to the verified exports, however often it is interrupted and started again.
`limit.py`: --max-hours, --budget-usd, --price-per-hour. `ledger.py`: runs/budget.json. `reserve.py`: the time that
evaluation, export and verification are going to need.
"""
