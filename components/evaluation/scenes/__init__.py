"""What a trained model is worth: language, pictures, captions, and the report that shows them."""
