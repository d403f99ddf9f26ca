"""Routers score prompts: one file each, all behind the protocol in `base`. The only door to torch and transformers."""
