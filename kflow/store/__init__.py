"""Where results live: entries by fingerprint, published whole or not at all."""
