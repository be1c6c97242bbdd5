//! The proxy over sockets.
