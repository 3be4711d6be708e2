"""What every package needs and none owns: errors, files and manifests, pictures, the tokenizer, seeded draws."""
