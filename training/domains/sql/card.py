"""The texts of the family on the model card."""

from __future__ import annotations

from training.domain import CardText

CARDS = {
    "text_to_sql": CardText(
        about=(
            "A LoRA adapter that makes a causal language model write one SQL query for a question about a database "
            "whose schema is in the prompt; and the base model with the adapter merged."
        ),
        task="question to SQL",
        limits=(
            "It answers questions about schemas that it is shown. A wrong query may run and give wrong rows: check "
            "answers that matter, and run them with a role that may only read.",
            "Its figures hold for the databases, the wordings and the SQL dialect of its held-out questions.",
            "The base model's licence and limits apply.",
        ),
    ),
}
