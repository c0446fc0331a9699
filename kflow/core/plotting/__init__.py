"""Pictures of models: what is drawn, as which text, and what makes a picture of it."""

from kflow.core.plotting.plots import model_to_dot, model_to_mermaid, model_to_text, plot_model

__all__ = ["model_to_dot", "model_to_mermaid", "model_to_text", "plot_model"]
