"""One model on several devices: which there are, its replicas, and what it gains."""

from kflow.core.parallel.multi_gpu import multi_gpu_model
from kflow.core.parallel.scaling import Scaling, measure_scaling

__all__ = ["Scaling", "measure_scaling", "multi_gpu_model"]
