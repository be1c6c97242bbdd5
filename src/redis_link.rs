//! The one way to Redis: standalone, Sentinel, Cluster and TLS behind one handle.
