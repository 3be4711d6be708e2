"""What must hold of documents and latents, who decides it, and how the result is read."""
