"""How a workflow will be carried out: bound references, order, fingerprints and verdicts. Pure."""
