//! Node-to-node mutual TLS: frames, lanes, calls; an in-memory double.
