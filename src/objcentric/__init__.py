"""Object-centric generative models in JAX. Import the part you need, e.g. ``from objcentric import objectives``."""
