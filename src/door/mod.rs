//! Placeholder of `door`, replaced as it is built.
