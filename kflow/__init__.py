"""kflow: typed YAML workflows for repeatable Keras experiments."""

__version__ = "0.1.0"
