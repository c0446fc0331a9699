"""One model on several devices: which there are, its replicas, and what it gains."""
