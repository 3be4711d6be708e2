"""EleutherAI's lm-evaluation-harness (the extra lm-eval) on the text of a bundle or a trained model."""
