//! Placeholder of `proxy`, replaced as it is built.
