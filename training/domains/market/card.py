"""The texts of the families on the model card."""

from __future__ import annotations

from training.domain import CardText


def card(title: str) -> CardText:
    """The part of a family."""
    return CardText(
        about=(
            f"{title} that estimates, at the close of every five-minute bar, which barrier the price touches first: up "
            "after costs, down, or neither within the time limit."
        ),
        task="bars to the probabilities of three outcomes",
        limits=(
            "Its figures hold for the symbol, the time and the costs of its data. Markets change, and an edge that was "
            "found by trying many models is smaller than it looks: the deflated Sharpe ratio counts the trials.",
            "It does not know market impact, financing, margin, outages, or an order that is not filled.",
            "It is no advice to trade.",
        ),
    )
