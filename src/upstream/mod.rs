//! Placeholder of `upstream`, replaced as it is built.
