"""What a workflow says: typed, frozen, and without any input or output."""
