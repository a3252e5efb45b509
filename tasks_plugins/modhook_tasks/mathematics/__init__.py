"""DeepMind mathematics: questions and answers as text, character by character."""
