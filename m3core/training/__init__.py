"""The Matryoshka objective: fine-tune a model so that it answers from every scale."""
