//! The stub over its sockets.
