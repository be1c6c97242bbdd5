//! Placeholder of `identity`, replaced as it is built.
