"""What must hold of documents and latents, who decides it, and how the verdict is read."""
