"""What the claims of docs/training.md rest on."""
