"""Behaviours of a language model: prompts and answers in a file, one function for each group of lines."""
