"""The programming interface of the Sherlock autoencoder's training system, over Athanor's engine and brain domain.

docs/brain.md has what each name and key does here, and what is refused.
"""
