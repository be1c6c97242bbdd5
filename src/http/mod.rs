//! Placeholder of `http`, replaced as it is built.
