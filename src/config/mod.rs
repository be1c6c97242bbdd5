//! Placeholder of `config`, replaced as it is built.
