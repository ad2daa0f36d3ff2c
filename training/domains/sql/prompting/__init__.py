"""From a database and a question to the text and the token ids that a language model gets."""
