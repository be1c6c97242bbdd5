//! Placeholder of `admin`, replaced as it is built.
