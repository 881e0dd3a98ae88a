//! Threshold ceremonies, sans-IO: key generation, FROST, Diffie-Hellman.
