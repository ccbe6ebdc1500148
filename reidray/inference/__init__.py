"""A trained model for people to use: `load` it, `embed` images of any kind. No Ray is needed."""

from reidray.inference.model import Embeddings, Model, load

__all__ = ["Embeddings", "Model", "load"]
