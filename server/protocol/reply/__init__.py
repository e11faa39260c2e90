"""The assistant's side: responses and what they say, write and call."""
