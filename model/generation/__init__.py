"""How text and latents are generated: the engine protocol, requests, and the one loop."""
