"""What happens to latents between clean and pure noise: paths, targets, noise, solvers."""
