//! Placeholder of `stub`, replaced as it is built.
