"""What leaves: an adapter for PEFT, and a merged model for Hugging Face's libraries."""
