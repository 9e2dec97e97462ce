"""Images, manifests and scripts of infra/."""
