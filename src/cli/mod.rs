//! Placeholder of `cli`, replaced as it is built.
