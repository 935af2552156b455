"""Train the networks that ``upscale`` runs."""
